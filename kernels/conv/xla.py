"""Convolutions by XLA, in the form that suits each platform.

Four forms, with equal values up to rounding:

- 'product': a 1x1 filter of stride 1 is one matrix product over the channels.
- 'patches': on a TPU, patches of few channels are rearranged to be a product too, by
  kernels/conv/blocks.py.
- 'taps': on a CPU, a depthwise convolution is the sum over the taps of the filter of
  shifted inputs times one weight a channel, which XLA makes one loop of.
- 'convolution': lax.conv_general_dilated.

The gradients of a convolution are convolutions with explicit padding: of the input with
a dilated dy, of the filter with a dilated dy as the filter. On a CPU both are in the
order NHWC x HWIO, for two reasons. Inside a loop or branch XLA leaves any other order
to a naive loop: see dlx/layers/convolution.py. And its own form of a depthwise filter
gradient computes the products of all pairs of channels: 69.4 million operations by
cost_analysis against 1.08 million here (batch 4, 16 x 16 x 64, 3 x 3, jax 0.10.2).

A depthwise convolution by lax, on two cores, float32, jax 0.11.2, 2026-11-30, took
7.7 ms for a 7 x 7 filter on [64, 8, 8, 32], 137 on [8, 56, 56, 96], 15.6 for 3 x 3 of
stride 2 on [32, 32, 32, 96]; by taps 0.4, 4.9 and 1.2. Gradients of the input took 7.7,
137 and 184 ms; by taps 0.4, 4.8 and 1.8. 1 to 256 channels, 1 to 121 taps, inside of
loops too, it was faster by 3 to 500 times. Sums by taps of the filter's gradient were
not (lax 2.0, 72 and 9.9 ms, taps 2.4, 196 and 20): that stays a convolution. oneDNN,
where it is built, is ahead of all three: kernels/conv/cpu.py.

By XLA's own estimates for a v5e (estimated_cycles of what it compiled, bfloat16, batch
32, jax 0.10.2, libtpu 0.0.42.1; never run on one) the product takes 0.35 million cycles
against 0.70 for 56 x 56 x 64 -> 256, and patches of 4 x 4 x 3 -> 96 of 224 x 224 take
0.32 against 0.48. Space to depth of a 7 x 7 stem of stride 2 takes 2.20 against 1.95:
it is for those who name it, kernels/conv/space_to_depth.py. Nothing was measured on a
GPU.

Sums are float32 or wider. On CUDA those of 16-bit operands are rounded to 16 bits
before the epilogue, save in the form 'product': cuDNN need not have a convolution of
them that gives float32. How float32 is multiplied, jax_default_matmul_precision says.
"""

import functools
import math
from typing import Any, Callable, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from kernels import dispatch
from kernels.conv import blocks, epilogue
from kernels.conv.case import FILTER, FORWARD, Case, Operands, Pair
from kernels.conv.reference import padded, taps

Array = jax.Array

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
MOST_TAPS = 128  # Of the form 'taps', a term each in what is compiled.


class Form(NamedTuple):
  """How a case is computed on a platform.

  Attributes:
    name: 'product', 'patches', 'taps' or 'convolution'; see the module.
    sums: name of the dtype that the sums leave the product in; None: that of x.
    cast: operands are made float32 first.
    canonical: the gradients are in the order NHWC x HWIO.
  """

  name: str
  sums: str | None
  cast: bool
  canonical: bool


def refusal(case: Case) -> None:
  del case


def form(case: Case, platform: str) -> Form:
  """The form of a case on one of dispatch.PLATFORMS."""
  half = jnp.dtype(case.dtype).itemsize < 4
  name = 'convolution'
  margin = any(map(any, case.padding))
  if case.groups == 1 and case.kernel == case.stride == (1, 1) and not margin:
    name = 'product'
  elif platform == 'tpu' and case.kernel == case.stride and blocks.suits(case):
    name = 'patches'
  elif platform == 'cpu' and case.depthwise and math.prod(case.kernel) <= MOST_TAPS:
    name = 'taps'
  # What stays in the wide dtype: a filter's gradient, and what has an epilogue.
  stays = case.function == FILTER or case != case.bare(case.function)
  sums = None
  if half and stays and (platform != 'cuda' or name == 'product'):
    sums = 'float32'
  # Strided and dilated at once, bfloat16 finds no algorithm of cuDNN: jax issue 37922.
  cast = half and platform == 'cuda' and max(case.stride) > 1 and max(case.dilation) > 1
  return Form(name, sums, cast, platform == 'cpu')


def forward(case: Case, operands: Operands) -> Array:
  """y [N, H', W', O] in the dtype of x."""
  return _by_platform(_forward, case, operands)


def input_gradient(case: Case, dy: Array, w: Array) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  return _by_platform(_input_gradient, case, dy, w)


def filter_gradient(case: Case, x: Array, dy: Array) -> Array:
  """dw [*kernel, C / groups, O] in float32 or wider."""
  return _by_platform(_filter_gradient, case, x, dy)


def _by_platform(function: Callable[..., Array], case: Case, *args: Any) -> Array:
  """`function` in the form of each platform; one call where they have the same."""
  forms = {platform: form(case, platform) for platform in dispatch.PLATFORMS}
  if case.function == FORWARD:
    forms = {p: f._replace(canonical=False) for p, f in forms.items()}
  if len(set(forms.values())) == 1:
    return function(forms['cpu'], case, *args)
  bodies = {p: functools.partial(function, f, case) for p, f in forms.items()}
  return lax.platform_dependent(*args, **bodies)


def _forward(f: Form, case: Case, operands: Operands) -> Array:
  x, w, *rest = operands
  y = epilogue.apply(case, epilogue.wide(_convolve(f, case, x, w)), *rest)
  return y.astype(x.dtype)


def _convolve(f: Form, case: Case, x: Array, w: Array) -> Array:
  """The sums, in the dtype of x or wider."""
  if f.name == 'product':
    return _product(f, x, w[0, 0], ((3,), (0,)))
  if f.name == 'patches':
    f, inner = f._replace(name='product'), blocks.inner(case)
    return _convolve(f, inner, blocks.gather(case, x), blocks.fold(case, w))
  if f.name == 'taps':
    return _by_taps(case, padded(case, x), w)
  return _lax(
    f, x, w, case.stride, case.padding, rhs_dilation=case.dilation,
    feature_group_count=case.groups,
  )  # fmt: skip


def _input_gradient(f: Form, case: Case, dy: Array, w: Array) -> Array:
  if f.name == 'product':
    return _product(f, dy, w[0, 0], ((3,), (1,))).astype(dy.dtype)
  if f.name == 'patches':
    f, inner = f._replace(name='product'), blocks.inner(case)
    dx = _input_gradient(f, inner, dy, blocks.fold(case, w))
    return blocks.scatter(case, dx)
  # dx[i] = sum_k dy'[i + p - k d] w[k] with dy' the dilated dy: a convolution with the
  # reversed filter that starts (k - 1) d - p before it.
  pads = []
  for n, k, d, (p, _), span in _axes(case):
    pads.append(((k - 1) * d - p, n + p - span))
  if f.name == 'taps':
    holes = ((0, 0, 0), *((*p, s - 1) for p, s in zip(pads, case.stride)), (0, 0, 0))
    dy_wide = lax.pad(dy, jnp.zeros((), dy.dtype), holes)
    around = case._replace(height=dy_wide.shape[1], width=dy_wide.shape[2])
    inner = around._replace(stride=(1, 1), padding=((0, 0), (0, 0)))
    return _by_taps(inner, dy_wide, w[::-1, ::-1]).astype(dy.dtype)
  # Each group's O / groups outputs are summed to its C / groups inputs.
  inputs, groups = case.channels // case.groups, case.groups
  w = w[::-1, ::-1].reshape(*case.kernel, inputs, groups, -1)
  w = w.transpose(0, 1, 3, 2, 4).reshape(*case.kernel, groups * inputs, -1)
  dimensions = ('NHWC', 'HWOI', 'NHWC')
  if f.canonical:
    w, dimensions = w.transpose(0, 1, 3, 2), _DIMENSIONS
  return _lax(
    f, dy, w, (1, 1), pads, lhs_dilation=case.stride, rhs_dilation=case.dilation,
    feature_group_count=groups, dimension_numbers=dimensions,
  ).astype(dy.dtype)  # fmt: skip


@functools.partial(jax.jit, static_argnums=0)
def _by_taps(case: Case, x_padded: Array, w: Array) -> Array:
  """The sums of a depthwise case, float32 or wider; its padding is done."""
  # What made x is not to be computed again for every tap.
  x_padded, w = lax.optimization_barrier(x_padded), epilogue.wide(w)
  total = jnp.zeros(case.out_shape, w.dtype)
  for row, column, seen in taps(case):
    total += epilogue.wide(x_padded[seen]) * w[row, column, 0][None, None, None]
  return total


def _filter_gradient(f: Form, case: Case, x: Array, dy: Array) -> Array:
  shape = (*case.kernel, case.channels // case.groups, case.features)
  if 0 in case.out_shape:  # XLA refuses a filter without taps.
    return epilogue.wide(jnp.zeros(shape, x.dtype))
  if f.name == 'product':
    dw = _product(f, x, dy, ((0, 1, 2), (0, 1, 2)))
    return epilogue.wide(dw.reshape(shape))
  if f.name == 'patches':
    f, inner = f._replace(name='product'), blocks.inner(case)
    dw = _filter_gradient(f, inner, blocks.gather(case, x), dy)
    return blocks.unfold(case, dw)
  # dw[k] = sum_i x[i s + k d - p] dy[i]: x convolved with dy, stride and dilation
  # exchanged; the padding at the end (it may be negative) is what leaves k outputs.
  pads = []
  for n, k, d, (p, _), span in _axes(case):
    pads.append((p, (k - 1) * d + span - n - p))
  options = {'rhs_dilation': case.stride}
  if f.canonical:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, case.groups, channels // case.groups)
    x = x.transpose(4, 1, 2, 3, 0)
    x = x.reshape(channels // case.groups, height, width, case.groups * batch)
    dy = dy.transpose(1, 2, 0, 3)
    options |= {'feature_group_count': case.groups}
  else:
    dimensions = ('CHWN', 'IHWO', 'HWNC')
    options |= {'batch_group_count': case.groups, 'dimension_numbers': dimensions}
  dw = _lax(f, x, dy, case.dilation, pads, **options)
  return epilogue.wide(dw.transpose(1, 2, 0, 3) if f.canonical else dw)


def _axes(case: Case):
  """Of height and width: size, taps, dilation, padding, size of the dilated dy."""
  spans = (max((n - 1) * s + 1, 0) for n, s in zip(case.out_shape[1:3], case.stride))
  return zip((case.height, case.width), case.kernel, case.dilation, case.padding, spans)


def _product(f: Form, a: Array, b: Array, axes: Any) -> Array:
  """The product summed over these axes of both."""
  sums = f.sums and jnp.dtype(f.sums)
  return lax.dot_general(a, b, (axes, ((), ())), preferred_element_type=sums)


def _lax(f: Form, x: Array, w: Array, stride: Pair, padding: Any, **options: Any):
  if f.cast:
    x, w = epilogue.wide(x), epilogue.wide(w)
  options.setdefault('dimension_numbers', _DIMENSIONS)
  if f.sums is not None:
    options['preferred_element_type'] = jnp.dtype(f.sums)
  return lax.conv_general_dilated(x, w, stride, padding, **options)
