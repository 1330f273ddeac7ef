"""Attention in blocks: memory, what is not computed, and the textbook in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import api, flash_attention, reference, xla

LENGTHS = (1, 17, 64, 127, 128, 200)
HEADS = ((1, 1), (4, 1), (8, 4))
MASKS = (
  {}, {'causal': True}, {'window': (20, 9)}, {'window': 33, 'causal': True},
  {'window': (0, 70)},
)  # fmt: skip

LARGE = 1000  # From this seed on: 127 and 512 tokens, 128 and 256 wide.


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(xla, 'ALL_BYTES', 0)
  monkeypatch.setattr(xla, 'LEAST', 64)
  monkeypatch.setattr(xla, 'MOST_QUERIES', 64)
  monkeypatch.setattr(xla, 'MOST_SCORES', 64 * 64)


def sample(seed):
  """(shapes and options, operands in float64 that are exact in the dtype)."""
  rng = np.random.default_rng(seed)
  pick = lambda options: options[rng.integers(len(options))]
  large = seed >= LARGE
  lengths, widths = ((127, 512), (128, 256)) if large else (LENGTHS, (32, 64, 80))
  queries, keys, batch = pick(lengths), pick(lengths), pick((1, 2))
  width = pick(widths)
  (heads, kv_heads), options = pick(HEADS), dict(pick(MASKS))
  dtype = pick((jnp.float32, jnp.float32, jnp.bfloat16))
  normal = lambda *shape: np.asarray(
    jnp.asarray(rng.normal(size=shape), dtype), np.float64
  )
  arrays = {
    'q': normal(batch, queries, heads, width),
    'k': normal(batch, keys, kv_heads, width),
    'v': normal(batch, keys, kv_heads, width),
  }
  full = (batch, heads, queries, keys)
  shapes = (full, (1, *full[1:]), (batch, 1, 1, keys), (1, 1, queries, 1))
  if bias := pick((None, None, None, *shapes)):
    arrays['bias'] = normal(*bias)
  if pick((0, 1)):
    options['segment_ids'] = np.sort(rng.integers(0, 3, size=(batch, queries))).astype(
      np.int32
    )
    options['kv_segment_ids'] = np.sort(rng.integers(0, 3, size=(batch, keys))).astype(
      np.int32
    )
  if pick((0, 0, 1)):
    options['soft_cap'] = 3.0
  if pick((0, 0, 0, 1)):
    options |= {'dropout_rate': 0.3, 'dropout_key': jax.random.key(seed)}
  do = normal(batch, queries, heads, width)
  dlse = rng.normal(size=(batch, heads, queries))
  return dtype, arrays, options, do, dlse


def passes(arrays, options, do, dlse, dtype, implementation='xla'):
  """(o, lse) of flash_attention, and slopes by name."""

  def both(arrays, do, dlse):
    attend = functools.partial(
      flash_attention, return_lse=True, implementation=implementation, **options
    )
    finite = lambda arrays: _finite(attend(**arrays))
    found, pull, lse = jax.vjp(finite, arrays, has_aux=True)
    return (found[0], lse), pull((do, dlse))[0]

  cast = {name: jnp.asarray(x, dtype) for name, x in arrays.items()}
  wide = jnp.promote_types(dtype, jnp.float32)
  return jax.jit(both)(cast, jnp.asarray(do, dtype), jnp.asarray(dlse, wide))


def _finite(found):
  """The log sums also as they are: -inf has no slope."""
  o, lse = found
  return (o, jnp.where(jnp.isneginf(lse), 0, lse)), lse


def textbook(arrays, options, do, dlse, low=lambda x: x):
  """(o, lse), slopes, and the most that slopes of scores add up to, signs aside.

  NumPy in float64; `low` rounds what products have for operands, and o.
  """
  q, k, v, bias = (arrays.get(name) for name in ('q', 'k', 'v', 'bias'))
  (batch, length, heads, width), (_, keys, kv_heads, _) = q.shape, k.shape
  k, v = (np.repeat(x, heads // kv_heads, axis=2) for x in (k, v))
  product = lambda *args: np.einsum(*args, optimize=True)
  s, cap_slope = product('blhk,bmhk->bhlm', q, k) / np.sqrt(width), 1
  if cap := options.get('soft_cap'):
    cap_slope = 1 - np.tanh(s / cap) ** 2
    s = cap * np.tanh(s / cap)
  s = s if bias is None else s + bias
  i, j = np.arange(length)[:, None], np.arange(keys)[None]
  seen = np.ones((batch, 1, length, keys), bool)
  if options.get('causal'):
    seen &= j <= i
  if window := options.get('window'):
    left, right = (window, window) if isinstance(window, int) else window
    seen &= (i - left <= j) & (j <= i + right)
  if 'segment_ids' in options:
    seen &= (
      options['segment_ids'][:, None, :, None]
      == options['kv_segment_ids'][:, None, None, :]
    )
  s = np.where(seen, s, -np.inf)
  top = s.max(-1, keepdims=True)
  top = np.where(np.isneginf(top), 0, top)
  total = np.exp(s - top).sum(-1, keepdims=True)
  none = total == 0
  total = np.where(none, 1, total)
  lse = np.where(none, -np.inf, np.log(total) + top)[..., 0]
  p, share = np.exp(s - top) / total, 1
  if 'dropout_rate' in options:
    described = api.prepare(*(jnp.asarray(arrays[n]) for n in 'qkv'), **options)
    share = np.asarray(reference.kept(*described)) / (1 - options['dropout_rate'])
  o = low(product('bhlm,bmhk->blhk', low(p * share), v))
  dp = product('blhk,bmhk->bhlm', do, v) * share
  along = product('blhk,blhk->bhl', o, do) - np.where(np.isneginf(lse), 0, dlse)
  ds = p * (dp - along[..., None])
  da = ds * cap_slope / np.sqrt(width)
  of_keys = lambda x: x.reshape(batch, keys, kv_heads, -1, width).sum(3)
  slopes = {
    'q': product('bhlm,bmhk->blhk', low(da), k),
    'k': of_keys(product('bhlm,blhk->bmhk', low(da), q)),
    'v': of_keys(product('bhlm,blhk->bmhk', low(p * share), do)),
  }
  axes = ()
  if bias is not None:
    axes = tuple(i for i, n in enumerate(bias.shape) if n == 1)
    slopes['bias'] = ds.sum(axes, keepdims=True)
  return (o, lse), {n: low(x) for n, x in slopes.items()}, np.abs(ds).sum(axes).max()


# With biases of each form.
@pytest.mark.parametrize('seed', (*range(60, 80), *range(LARGE, LARGE + 4)))
def test_values_and_gradients_are_the_textbook_s_in_float64(seed, small_blocks):
  """float32: 2e-5 forward, 1e-5 log sums, 1e-4 of the largest slope. bfloat16: half as
  far again as with all scores at once, and 1e-3 of the largest."""
  dtype, arrays, options, do, dlse = sample(seed)
  found = passes(arrays, options, do, dlse, dtype)
  *wanted, mass = textbook(arrays, options, do, dlse)
  low = lambda x: np.asarray(x).astype(dtype).astype(np.float64)
  *rounded, _ = textbook(arrays, options, do, dlse, low)
  names = ['o', 'lse', *sorted(arrays)]
  flat = lambda tree: [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]
  each = zip(names, flat(found), flat(wanted), flat(rounded), strict=True)
  for name, a, b, c in each:
    assert np.array_equal(np.isneginf(a), np.isneginf(b)), name
    a, b, c = (np.where(np.isneginf(x), 0, x) for x in (a, b, c))
    most = max(np.abs(b).max(), 1e-3)
    if name == 'lse':
      limit = 1e-5 * max(most, 1)
    elif dtype == jnp.bfloat16:
      # Slopes of a shared bias cancel, their errors do not.
      most = mass if name == 'bias' else most
      limit = 1.5 * np.abs(c - b).max() + 1e-3 * most
    else:
      limit = 2e-5 * max(most, 1) if name == 'o' else 1e-4 * most
    assert np.abs(a - b).max() <= limit, name


def test_the_reference_is_the_textbook_in_float64():
  for seed in (63, 71):  # All options are in one or the other.
    _, arrays, options, do, dlse = sample(seed)
    with jax.enable_x64(True):
      found = passes(arrays, options, do, dlse, jnp.float64, 'reference')
    wanted = textbook(arrays, options, do, dlse)[:2]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_memory_grows_with_the_tokens_and_not_with_their_square():
  """Temporaries of one head of width 64 in float32 at 4096, 8192 and 16384 tokens.

  Forward 2.501 MB at each, with all gradients 5.147, 5.180 and 6.761 MB, where the
  reference takes 134.2, 536.9 and 2148, and 203.5, 809.6 and 3230 MB: with the square
  (causal, jax 0.11.2, CPU, compiled.memory_analysis(), December 2026).
  """
  attend = lambda q, k, v: flash_attention(q, k, v, causal=True, implementation='xla')
  loss = lambda *args: attend(*args).sum()
  for function in (attend, jax.value_and_grad(loss, argnums=(0, 1, 2))):
    temps = []
    for length in (4096, 8192, 16384):
      x = jax.ShapeDtypeStruct((1, length, 1, 64), jnp.float32)
      program = jax.jit(function).lower(x, x, x).compile()
      temps.append(program.memory_analysis().temp_size_in_bytes)
    each = 8 * 4 * 64  # At most eight arrays like q besides the blocks.
    assert temps[1] - temps[0] <= 4096 * each and temps[2] - temps[1] <= 8192 * each
    assert temps[2] < 8e6


def test_the_gradient_of_a_bias_takes_no_more_than_itself():
  length = 2048
  x = jax.ShapeDtypeStruct((1, length, 2, 64), jnp.float32)
  bias = jax.ShapeDtypeStruct((1, 1, length, length), jnp.float32)
  attend = lambda *args: flash_attention(*args[:3], bias=args[3], implementation='xla')
  slope = jax.grad(lambda *args: attend(*args).sum(), argnums=3)
  program = jax.jit(slope).lower(x, x, x, bias).compile()
  assert program.memory_analysis().temp_size_in_bytes < 4 * length**2


def test_blocks_without_visible_keys_are_not_computed(small_blocks):
  """What is not a number spreads from every block that is."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 256, 1, 8)).astype(np.float32)
  bad = x.copy()
  bad[:, 128:] = np.nan
  attend = lambda k, **mask: flash_attention(x, k, k, implementation='xla', **mask)
  rows = lambda o: np.isfinite(np.asarray(o)).all((0, 2, 3))
  of_blocks = lambda found: found.reshape(4, 64).all(1).tolist()
  assert of_blocks(rows(attend(bad, causal=True))) == [True, True, False, False]
  assert of_blocks(rows(attend(bad, window=(300, 63)))) == [True, False, False, False]
  late = lambda **mask: of_blocks(rows(attend(bad[:, ::-1], **mask)))
  assert late(window=(63, 300)) == [False, False, False, True]
  # Slopes of the first two blocks of queries alone are none; keys after them see that.
  do = np.flip(bad, 1)
  pull = lambda **mask: jax.vjp(lambda k: attend(k, **mask), x)[1](jnp.asarray(do))[0]
  assert of_blocks(rows(pull(causal=True))) == [False, False, True, True]
  assert of_blocks(rows(pull(window=(300, 63)))) == [False, False, False, True]


def test_few_scores_and_one_query_are_one_block():
  case = api.describe(*[jax.ShapeDtypeStruct((8, 64, 4, 32), jnp.float32)] * 3)
  assert xla.blocks(case) == (64, 64)
  q = jax.ShapeDtypeStruct((1, 1, 8, 64), jnp.bfloat16)
  k = jax.ShapeDtypeStruct((1, 65536, 2, 64), jnp.bfloat16)
  assert xla.blocks(api.describe(q, k, k)) == (1, 65536)
  attend = lambda q, k, v: flash_attention(q, k, v, implementation='xla')
  assert 'while' not in jax.jit(attend).lower(q, k, k).as_text()
  # Of 64 examples of 16 heads a block is as small as it may be.
  case = api.describe(*[jax.ShapeDtypeStruct((64, 1024, 16, 64), jnp.bfloat16)] * 3)
  assert xla.blocks(case) == (128, 128)


def test_keys_are_not_repeated_for_each_head():
  q = jax.ShapeDtypeStruct((1, 16, 8, 16), jnp.float32)
  k = jax.ShapeDtypeStruct((1, 4096, 1, 16), jnp.float32)
  attend = lambda q, k, v: flash_attention(q, k, v, implementation='xla')
  text = jax.jit(attend).lower(q, k, k).as_text()
  assert '4096x8x16' not in text and '8x4096x16' not in text
