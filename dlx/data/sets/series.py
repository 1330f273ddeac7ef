"""Series in time, by name: what `--config.dataset` of a forecast takes.

sea_temperature  monthly, of the Pacific off Peru (Nino 1+2: 0 to 10 degrees south, 80
                 to 90 west), January 1950 to December 2010, degrees Celsius; NOAA's
                 ERSST.V3B
sunspots         their yearly mean number, 1700 to 2008; NOAA's National Geophysical
                 Data Center

Both lie here, as published; any other name is that of a series of the user's own, made
by `python -m launch.data series`, whose numbers stand in its card. A forecast looks
forward: the first part of a series is for training, the next for validation, the last
for the test, and no number of a later part enters what a model of an earlier one is
fitted to or scaled by.
"""

import functools
from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.sets import cards, facts, registry
from dlx.errors import ConfigError, DataError

# Where the parts of a series end, as shares of it.
ENDS = {'train': 0.6, 'validation': 0.8, 'test': 1.0}


class Series(NamedTuple):
  """Numbers at equal distances in time.

  Attributes:
    name: as in `--config.dataset`.
    value_N: float64, in `unit`.
    unit: what is counted or measured.
    step: what lies between two of them.
    period: steps after which it comes back to where it was, about.
    card: of a series of the user's own; None: it is embedded.
  """

  name: str
  value_N: np.ndarray
  unit: str
  step: str
  period: int
  card: cards.Card | None = None


class Windows(NamedTuple):
  """Stretches of a series, each cut into what is seen and what is asked for.

  Attributes:
    sources: by part: `past` float32 [W] and `future` float32 [H], in deviations from
      the mean. What is asked for lies in the part; what is seen may begin before it.
    mean, std: of the numbers of the training part, in the unit of the series.
    past_NW, future_NH: by part, float64, in the unit of the series.
  """

  sources: Mapping[str, Source]
  mean: float
  std: float
  past_NW: Mapping[str, np.ndarray]
  future_NH: Mapping[str, np.ndarray]


def series(name: str) -> Series:
  """A series by name; reads nothing, of one of the user's own its card.

  Raises:
    ConfigError: no series has the name.
  """
  card = registry.check(name, 'series')
  if card is not None:
    told = card.facts
    value_N = facts.series_values(told)
    return Series(name, value_N, told['unit'], told['step'], told['period'], card)
  if name == 'sunspots':
    return Series(name, _numbers(_SUNSPOTS) / 10, 'sunspots', 'year', 11)
  value_N = _numbers(_SEA_TEMPERATURE) / 100
  return Series(name, value_N, 'degrees Celsius', 'month', 12)


def windows(of: Series, past: int, horizon: int) -> Windows:
  """Every stretch of a series, by part; reads nothing.

  Args:
    of: the series.
    past: W, numbers that are seen, at least 1.
    horizon: H, numbers that are asked for, at least 1.

  Raises:
    ConfigError: a part has no room for one stretch.
  """
  n, start, pasts, futures = len(of.value_N), 0, {}, {}
  for part, share in ENDS.items():
    end = round(share * n)
    first, last = max(start, past), end - horizon
    if last < first:
      raise ConfigError(
        f'past={past}, horizon={horizon} are not allowed on {of.name}: its part '
        f'{part} has {end - start} numbers, too few for one stretch.'
      )
    at_N = np.arange(first, last + 1)[:, None]
    pasts[part] = of.value_N[at_N - past + np.arange(past)[None]]
    futures[part] = of.value_N[at_N + np.arange(horizon)[None]]
    start = end
  seen = of.value_N[: round(ENDS['train'] * n)]
  mean, std = float(seen.mean()), float(seen.std())
  shapes = {
    'past': jax.ShapeDtypeStruct((past,), np.float32),
    'future': jax.ShapeDtypeStruct((horizon,), np.float32),
  }

  def source(part):
    scaled = lambda x: ((x - mean) / std).astype(np.float32)
    arrays = {'past': scaled(pasts[part]), 'future': scaled(futures[part])}
    read = functools.partial(_read, of, part, arrays)
    return Source(of.name, part, shapes, len(pasts[part]), read)

  return Windows({part: source(part) for part in ENDS}, mean, std, pasts, futures)


def _read(of: Series, part: str, arrays: Mapping[str, Any], data_dir=None) -> Loaded:
  if of.card is not None:
    found = cards.source(of.card, 'train').read(data_dir)
    if not np.array_equal(found.data['value'], of.value_N):
      raise DataError(
        f'{of.name}: its card says other numbers than its rows: remove the folder and '
        'prepare the series again.'
      )
    size = len(arrays['past'])
    return Loaded(dict(arrays), {**found.origin, 'split': part, 'size': size})
  registry.verify(of.name, of.value_N.astype('<f4'))
  size = len(arrays['past'])
  origin = {'name': of.name, 'split': part, 'kind': 'embedded', 'size': size}
  return Loaded(dict(arrays), origin)


def _numbers(text: str) -> np.ndarray:
  return np.array(text.split(), np.float64)


# Hundredths of a degree; a year a line.
_SEA_TEMPERATURE = """
2311 2420 2537 2386 2303 2157 2063 2015 1967 2003 2002 2180
2419 2528 2560 2537 2479 2469 2386 2232 2144 2177 2233 2289
2452 2621 2637 2473 2371 2234 2089 2002 1963 2040 2077 2239
2415 2634 2736 2703 2547 2349 2220 2145 2125 2095 2160 2244
2302 2500 2533 2297 2173 2077 1952 1933 1895 1911 2027 2130
2375 2482 2514 2422 2216 2120 2046 1963 1924 1916 1984 2119
2324 2471 2590 2466 2314 2204 2147 2055 1989 1969 2057 2158
2313 2630 2763 2715 2672 2504 2383 2234 2180 2180 2239 2369
2489 2655 2709 2637 2471 2323 2231 2072 2062 2105 2152 2250
2397 2590 2694 2584 2423 2257 2150 2015 2023 2086 2188 2255
2440 2559 2601 2466 2353 2183 2073 2010 2056 2027 2093 2274
2458 2666 2595 2517 2360 2236 2052 1997 1970 2007 2109 2211
2402 2535 2447 2343 2303 2181 2060 2017 2002 2014 2099 2182
2381 2536 2602 2467 2397 2241 2180 2131 2100 2113 2164 2255
2415 2508 2530 2461 2193 2144 2025 1948 1967 1979 2088 2183
2422 2617 2671 2701 2609 2460 2326 2254 2126 2157 2229 2335
2515 2588 2535 2426 2292 2180 2085 2017 2004 2051 2103 2225
2366 2554 2555 2498 2377 2204 2110 1984 1908 1947 2020 2128
2319 2488 2511 2397 2244 2170 2125 2097 2123 2112 2168 2320
2467 2556 2709 2666 2607 2439 2247 2106 2088 2174 2247 2360
2502 2576 2553 2476 2294 2127 1969 1927 1950 2016 2061 2177
2333 2458 2524 2495 2329 2160 2101 1997 1974 1988 2094 2199
2451 2666 2709 2625 2547 2501 2411 2342 2212 2258 2332 2489
2603 2648 2627 2487 2344 2176 2084 1947 1949 1980 2071 2174
2329 2487 2569 2528 2435 2248 2158 2073 2015 1988 2068 2141
2355 2495 2606 2553 2371 2184 2105 1997 1914 1917 1944 2105
2351 2536 2588 2572 2511 2446 2330 2191 2156 2169 2214 2329
2493 2579 2613 2529 2388 2270 2163 2025 1982 2061 2129 2247
2432 2577 2539 2473 2315 2189 2101 1966 1998 2022 2162 2294
2471 2560 2593 2558 2452 2328 2179 2105 2115 2143 2195 2297
2435 2573 2646 2571 2446 2288 2126 2057 2045 2043 2123 2234
2298 2490 2594 2489 2390 2257 2110 2003 2009 2058 2126 2260
2436 2542 2540 2496 2421 2335 2250 2189 2204 2288 2457 2589
2725 2823 2885 2882 2837 2743 2573 2388 2226 2222 2221 2319
2432 2512 2575 2540 2358 2230 2153 2064 2073 2062 2170 2247
2384 2483 2560 2428 2267 2184 2075 1990 1986 2026 2097 2249
2431 2590 2578 2486 2335 2203 2164 2107 2113 2146 2217 2353
2560 2702 2789 2695 2596 2404 2300 2192 2200 2254 2284 2351
2476 2574 2571 2468 2318 2166 2059 1963 1944 1983 2096 2225
2436 2602 2621 2554 2336 2214 2127 2086 2017 2052 2144 2261
2422 2617 2615 2515 2414 2276 2136 2070 2028 2040 2119 2229
2399 2559 2631 2515 2444 2328 2239 2139 2122 2173 2240 2375
2502 2662 2772 2758 2644 2386 2184 2087 2085 2115 2184 2279
2468 2646 2707 2684 2560 2411 2261 2165 2111 2171 2207 2286
2456 2589 2575 2449 2352 2231 2117 2022 2065 2204 2227 2375
2548 2625 2609 2432 2337 2243 2142 2046 2050 2062 2149 2203
2381 2552 2628 2400 2311 2166 2072 2023 2043 2052 2077 2168
2370 2608 2717 2674 2677 2615 2559 2495 2469 2464 2585 2708
2812 2882 2924 2845 2736 2519 2361 2227 2131 2137 2160 2281
2423 2573 2647 2453 2364 2209 2136 2067 2008 2046 2062 2242
2401 2538 2567 2553 2427 2293 2147 2007 2064 2090 2067 2208
2424 2611 2689 2599 2398 2271 2148 2024 1973 2014 2068 2173
2409 2623 2739 2644 2529 2328 2164 2132 2142 2185 2285 2405
2501 2627 2691 2541 2324 2215 2150 2125 2075 2170 2233 2360
2509 2647 2612 2527 2344 2254 2126 2079 2083 2156 2288 2339
2461 2509 2523 2521 2431 2260 2161 2047 2000 1989 2061 2220
2476 2652 2622 2429 2384 2282 2220 2189 2193 2246 2261 2415
2582 2681 2641 2496 2305 2161 2105 1995 1985 1931 1982 2115
2424 2639 2691 2568 2443 2319 2302 2214 2160 2139 2154 2273
2439 2553 2548 2584 2495 2409 2309 2203 2148 2164 2199 2321
2470 2616 2654 2604 2475 2326 2111 1949 1928 1973 2044 2207
"""

# Tenths of a sunspot.
_SUNSPOTS = """
50 110 160 230 360 580 290 200 100 80 30 0 0 20 110 270 470 630 600 390 280 260 220
110 210 400 780 1220 1030 730 470 350 110 50 160 340 700 810 1110 1010 730 400 200 160
50 110 220 400 600 809 834 477 478 307 122 96 102 324 476 540 629 859 612 451 364 209
114 378 698 1061 1008 816 665 348 306 70 198 925 1544 1259 848 681 385 228 102 241 829
1320 1309 1181 899 666 600 469 410 213 160 64 41 68 145 340 450 431 475 422 281 101 81
25 0 14 50 122 139 354 458 411 301 239 156 66 40 18 85 166 363 496 642 670 709 478 275
85 132 569 1215 1383 1032 857 646 367 242 107 150 401 615 985 1247 963 666 645 541 390
206 67 43 227 548 938 958 772 591 440 470 305 163 73 376 740 1390 1112 1016 662 447
170 113 124 34 60 323 543 597 637 635 522 254 131 68 63 71 356 730 851 780 640 418 262
267 121 95 27 50 244 420 635 538 620 485 439 186 57 36 14 96 474 571 1039 806 636 376
261 142 58 167 443 639 690 778 649 357 212 111 57 87 361 797 1144 1096 888 678 475 306
163 96 332 926 1516 1363 1347 839 694 315 139 44 380 1417 1902 1848 1590 1123 539 376
279 102 151 470 938 1059 1055 1045 666 689 380 345 155 126 275 925 1554 1546 1404 1159
666 459 179 134 294 1002 1576 1426 1457 943 546 299 175 86 215 643 933 1196 1110 1040
637 404 298 152 75 29
"""
