"""The shapes that kernels.bench and kernels.tune measure, and what they must cost.

A `Timed` is one row of a table: a call of the public interface and its least FLOPs and
bytes. Shapes are those that users meet: language models, packed documents, small heads
with a bias, one new token; ConvNeXt's, ResNet's and stem convolutions.
"""

from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kernels.conv.case import FILTER, FORWARD, INPUT

Array = jax.Array

BACKWARD = 'forward and backward'
CONV_PASSES = (FORWARD, INPUT, FILTER)


class Timed(NamedTuple):
  """One row.

  Attributes:
    name: of the row.
    shapes: of the arguments of `call`.
    call: (how, *arguments) -> arrays, to be jitted; `how` holds implementation and
      interpret for the public interface.
    case: what dispatch is asked, for its tables.
    flops: least number of multiplications and additions.
    bytes: least traffic with memory, every array once.
  """

  name: str
  shapes: tuple[jax.ShapeDtypeStruct, ...]
  call: Callable[..., Any]
  case: Any
  flops: float
  bytes: float

  def arguments(self, seed: int = 0) -> list[Array]:
    """Random arguments of these shapes; integers are documents in order."""
    rng = np.random.default_rng(seed)
    found = []
    for shape in self.shapes:
      if jnp.issubdtype(shape.dtype, jnp.integer):
        documents = np.arange(shape.shape[1]) * DOCUMENTS // shape.shape[1]
        found.append(jnp.asarray(np.broadcast_to(documents, shape.shape), shape.dtype))
      else:
        values = rng.standard_normal(shape.shape, np.float32)
        found.append(jnp.asarray(values, shape.dtype))
    return found


DOCUMENTS = 8  # Packed in a row, in the cases with segments.


def _attention(
  name: str,
  shape: Sequence[int],
  kv_heads: int | None = None,
  kv_len: int | None = None,
  *,
  passes: Sequence[str] = (FORWARD, BACKWARD),
  bias: bool = False,
  segments: bool = False,
  dtype: Any = jnp.bfloat16,
  **options: Any,
) -> list[Timed]:
  from kernels.attention import api

  batch, q_len, heads, width = shape
  kv_len = kv_len or q_len
  struct = lambda *sizes: jax.ShapeDtypeStruct(sizes, dtype)
  q = struct(*shape)
  k = struct(batch, kv_len, kv_heads or heads, width)
  more = {}
  if bias:
    more['bias'] = struct(1, heads, q_len, kv_len)
  if segments:
    more['segment_ids'] = jax.ShapeDtypeStruct((batch, q_len), jnp.int32)
  names = tuple(more)
  case = api.describe(q, k, k, **options, **more)

  def forward(how, q, k, v, *rest):
    given = dict(zip(names, rest, strict=True))
    return api.flash_attention(q, k, v, **how, **options, **given)

  def both(how, do, *args):
    total = lambda *qkv: forward(how, *qkv, *args[3:])
    o, pull = jax.vjp(total, *args[:3])
    return o, pull(do)

  # Pairs of query and key that see each other.
  pairs = q_len * kv_len
  if options.get('window') is not None:
    pairs = min(pairs, q_len * (1 + sum(case.window or ())))
  if options.get('causal') and options.get('window') is None:
    pairs /= 2
  if segments:
    pairs /= DOCUMENTS
  flops = 4 * batch * heads * pairs * width
  arrays = (q, k, k, *more.values())
  size = lambda x: float(np.prod(x.shape)) * x.dtype.itemsize
  traffic = sum(map(size, arrays)) + size(q)
  rows = {
    FORWARD: Timed(name, arrays, forward, case, flops, traffic),
    BACKWARD: Timed(f'{name} +bwd', (q, *arrays), both, case, 3.5 * flops, 3 * traffic),
  }
  return [rows[p] for p in passes]


def attention() -> list[Timed]:
  """bf16, 16k tokens and a width of 2048 where not named otherwise."""
  rows: list[Timed] = []
  for tokens in (1024, 4096, 16384):
    for causal in (False, True):
      name = f'd128 {tokens // 1024}k' + ' causal' * causal
      rows += _attention(name, (16384 // tokens, tokens, 16, 128), causal=causal)
  for causal in (False, True):
    name = ' causal' * causal
    rows += _attention('d64 4k' + name, (4, 4096, 32, 64), causal=causal)
    rows += _attention('d256 4k' + name, (4, 4096, 8, 256), causal=causal)
  rows += _attention('gqa 32/8 4k causal', (4, 4096, 32, 128), 8, causal=True)
  for width in (16, 32):
    rows += _attention(f'bias d{width} 1k', (64, 1024, 4, width), bias=True)
    rows += _attention(f'bias d{width} 4k', (8, 4096, 4, width), bias=True)
  rows += _attention(
    '8 documents in 8k', (2, 8192, 16, 128), segments=True, causal=True
  )
  rows += _attention(
    'window 1k in 16k', (1, 16384, 16, 128), window=(1023, 0), causal=True
  )
  for tokens in (8192, 65536):
    name = f'decode {tokens // 1024}k'
    rows += _attention(name, (16, 1, 32, 128), 8, tokens, passes=(FORWARD,))
  return rows


def _conv(
  name: str,
  x_NHWC: Sequence[int],
  w_HWIO: Sequence[int],
  *,
  passes: Sequence[str] = CONV_PASSES,
  epilogue: bool = False,
  dtype: Any = jnp.bfloat16,
  **options: Any,
) -> list[Timed]:
  from kernels.conv import api

  x, w = (jax.ShapeDtypeStruct(tuple(s), dtype) for s in (x_NHWC, w_HWIO))
  numbers = jax.ShapeDtypeStruct((w.shape[-1],), jnp.float32)
  more: Mapping[str, Any] = {}
  if epilogue:
    more = {'scale': numbers, 'shift': numbers}
    options['activation'] = 'relu'
  case = api.describe(x, w, **options, **more)
  dy = jax.ShapeDtypeStruct(case.out_shape, dtype)

  def forward(how, x, w, *rest):
    given = dict(zip(more, rest, strict=True))
    return api.conv2d(x, w, **how, **options, **given)

  def input_gradient(how, w, dy):
    size = (case.height, case.width)
    return api.conv2d_transpose(dy, w, size, **how, **options)

  def filter_gradient(how, x, w, dy):
    # Of a linear map: its value is not computed under jit.
    return jax.vjp(lambda w: forward(how, x, w), w)[1](dy)

  size = lambda s: float(np.prod(s.shape)) * s.dtype.itemsize
  flops = 2.0 * np.prod(case.out_shape) * np.prod(w.shape[:3])
  traffic = size(x) + size(w) + size(dy)
  bare = lambda kind: case._replace(
    function=kind, scale=False, shift=False, activation=None
  )
  rows = {
    FORWARD: Timed(name, (x, w, *more.values()), forward, case, flops, traffic),
    INPUT: Timed(
      f'{name} {INPUT}', (w, dy), input_gradient, bare(INPUT), flops, traffic
    ),
    FILTER: Timed(
      f'{name} {FILTER}', (x, w, dy), filter_gradient, bare(FILTER), flops, traffic
    ),
  }
  return [rows[p] for p in passes]


def conv() -> list[Timed]:
  """bf16, 128 images where not named otherwise."""
  rows: list[Timed] = []
  for size, channels in ((56, 96), (28, 192), (14, 384), (7, 768)):
    name = f'depthwise 7x7 {size}x{size}x{channels}'
    rows += _conv(
      name, (128, size, size, channels), (7, 7, 1, channels), groups=channels
    )
  rows += _conv(
    'depthwise 3x3 56x56x128', (128, 56, 56, 128), (3, 3, 1, 128), groups=128
  )
  for size, channels in ((56, 64), (28, 128), (14, 256)):
    name = f'3x3 bn relu {size}x{size}x{channels}'
    rows += _conv(
      name, (128, size, size, channels), (3, 3, channels, channels),
      epilogue=True, passes=('forward',),
    )  # fmt: skip
    rows += _conv(
      f'3x3 {size}x{size}x{channels}', (128, size, size, channels),
      (3, 3, channels, channels),
    )  # fmt: skip
  for channels, features in ((64, 256), (256, 64)):
    name = f'1x1 bn relu 56x56x{channels}-{features}'
    rows += _conv(
      name, (128, 56, 56, channels), (1, 1, channels, features),
      epilogue=True, passes=('forward',),
    )  # fmt: skip
  rows += _conv('stem 7x7/2', (128, 224, 224, 3), (7, 7, 3, 64), stride=2)
  rows += _conv('patchify 4x4/4', (128, 224, 224, 3), (4, 4, 3, 96), stride=4)
  return rows


SUITES = {'attention': attention, 'conv': conv}
