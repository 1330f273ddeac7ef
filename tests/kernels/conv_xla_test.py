"""Convolutions by XLA and oneDNN against the reference in float64, and their forms."""

import functools
import re

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch
from kernels.conv import blocks, conv2d, epilogue, space_to_depth, xla
from kernels.conv.case import FILTER, INPUT, Operands, describe
from tests.kernels.conv_cases import SWEEP, arrays, run, sums, wanted

ACTIVATIONS = ('relu', 'silu', None, 'relu6', 'gelu')
CASES = [(*case, ACTIVATIONS[i % 5]) for i, case in enumerate(SWEEP)]
# Depthwise, by sums over the taps on a CPU: stride, dilation, padding, an end that no
# tap sees, nothing at all.
DEPTHWISE = (
  ((2, 8, 7, 3), (3, 2, 1, 3), dict(groups=3, stride=2, padding=((1, 3), (0, 4)))),
  ((1, 9, 8, 5), (3, 3, 1, 5), dict(groups=5, stride=(2, 3), dilation=(1, 2))),
  ((2, 8, 8, 2), (2, 2, 1, 2), dict(groups=2, stride=3, padding='VALID')),
  ((2, 1, 3, 2), (7, 7, 1, 2), dict(groups=2)),
  ((2, 2, 2, 3), (3, 3, 1, 3), dict(groups=3, padding='VALID')),
)
CASES += [(*case, 'silu') for case in DEPTHWISE]


def conv(options, activation, implementation):
  """`conv2d` of arrays by their order."""
  return lambda x, w, scale, shift, residual: conv2d(
    x, w, scale=scale, shift=shift, residual=residual, **options,
    activation=activation, implementation=implementation,
  )  # fmt: skip


def alone(options):
  """The convolution by lax."""

  def function(x, w):
    case = describe(x, w, **options)
    return lax.conv_general_dilated(
      x, w, case.stride, case.padding, rhs_dilation=case.dilation,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=case.groups,
    )  # fmt: skip

  return function


def plain(options, activation):
  """The same as `conv` by lax and autodiff, bfloat16 before and after the epilogue."""

  def function(x, w, scale, shift, residual):
    y = alone(options)(x, w).astype(jnp.float32)
    y = lax.reduce_precision(y, exponent_bits=8, mantissa_bits=7)  # The slopes too.
    y = y * scale[None, None, None] + shift[None, None, None] + residual
    return epilogue.activate(activation, y).astype(x.dtype)

  return function


# oneDNN has one group, and not nothing to do.
ONEDNN = [i for i, (_, _, options) in enumerate(SWEEP[:-2]) if 'groups' not in options]
FLOAT32 = [('xla', *case) for case in CASES] + [('onednn', *CASES[i]) for i in ONEDNN]


@pytest.mark.parametrize('name, x_shape, w_shape, options, activation', FLOAT32)
def test_values_and_gradients_in_float32(
  name, x_shape, w_shape, options, activation, request
):
  if name == 'onednn':
    request.getfixturevalue('onednn')
  inputs, dy, results = wanted(x_shape, w_shape, options, activation)
  inputs, dy = [v.astype(np.float32) for v in inputs], dy.astype(np.float32)
  function = functools.partial(run, conv(options, activation, name))
  ours = jax.jit(function)(dy, *inputs)
  numbers = sums(x_shape, w_shape, results)
  for a, b, n in zip(ours, results, numbers, strict=True):
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * n**0.5)


HALF = [CASES[i] for i in (0, 2, 3, 4, 6, 12)]


@pytest.mark.parametrize('x_shape, w_shape, options, activation', HALF)
def test_values_and_gradients_in_bfloat16(x_shape, w_shape, options, activation):
  """Not further from float64 than lax and autodiff, by more than a half."""
  args = x_shape, w_shape, options, activation
  inputs, dy, results = wanted(*args, dtype='bfloat16')
  dtypes = [jnp.bfloat16] * 2 + [jnp.float32] * 2 + [jnp.bfloat16] * 2
  *inputs, dy = (v.astype(t) for v, t in zip([*inputs, dy], dtypes, strict=True))
  names = ('reference', 'xla')

  @jax.jit
  def found(dy, *inputs):
    functions = [conv(options, activation, name) for name in names]
    return [run(f, dy, *inputs) for f in (*functions, plain(options, activation))]

  *ours, theirs = jax.tree.map(lambda v: np.asarray(v, np.float64), found(dy, *inputs))
  far = lambda a, b: np.abs(a - b).max()
  for name, values in zip(names, ours, strict=True):
    for i, (a, b, c) in enumerate(zip(values, theirs, results, strict=True)):
      top = np.abs(c).max()
      # Half an ulp, whether theirs met it or not; scale and shift are float32.
      half_ulp = 0 if i in (3, 4) else 2**-9 * top
      limit = 1.5 * max(far(b, c), half_ulp) + 1e-3 * top
      assert far(a, c) <= limit, (name, i, far(a, c), far(b, c))


# Stems: windows that are whole blocks, and not; odd sizes; no, one and more paddings.
STEMS = (
  ((2, 9, 8, 3), (5, 4, 3, 4), dict(stride=2)),
  ((1, 8, 8, 4), (4, 4, 4, 3), dict(stride=4, padding='VALID')),
  ((1, 7, 11, 1), (3, 2, 1, 2), dict(stride=2, padding=((0, 3), (2, 0)))),
  ((1, 9, 6, 2), (5, 4, 2, 3), dict(stride=4, padding=((3, 1), (1, 6)))),
)


XLA = xla._forward, xla._input_gradient, xla._filter_gradient


@pytest.mark.parametrize('x_shape, w_shape, options', (*STEMS, *SWEEP[2:7]))
def test_forms_of_other_platforms(x_shape, w_shape, options):
  """Each form computes on a CPU what the reference does."""
  x, w, *_, dy = arrays(x_shape, w_shape, options, np.float32)
  case = describe(x, w, **options)
  computed_by = [
    [functools.partial(function, form) for function in XLA]
    for form in {xla.form(case, platform) for platform in dispatch.PLATFORMS}
  ]
  assert blocks.suits(case) == ((x_shape, w_shape, options) in STEMS)
  if blocks.suits(case):
    assert space_to_depth.refusal(case) is None
    names = 'forward', 'input_gradient', 'filter_gradient'
    computed_by.append([getattr(space_to_depth, name) for name in names])

  @jax.jit
  def found(x, w, dy):
    return [
      (
        forward(case, Operands(x, w)),
        input_gradient(case.bare(INPUT), dy, w),
        filter_gradient(case.bare(FILTER), x, dy),
      )
      for forward, input_gradient, filter_gradient in computed_by
    ]

  with jax.enable_x64(True):
    wide = [np.asarray(v, np.float64) for v in (dy, x, w)]
    results = jax.jit(functools.partial(run, alone(options)))(*wide)
  numbers = sums(x_shape, w_shape, results)
  for ours in found(x, w, dy):
    for a, b, n in zip(ours, results, numbers, strict=False):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * n**0.5)


def test_which_form():
  def name(x_shape, w_shape, platform='tpu', dtype='float32', **options):
    x, w = (jax.ShapeDtypeStruct(s, dtype) for s in (x_shape, w_shape))
    return xla.form(describe(x, w, **options), platform).name

  assert name((2, 8, 8, 5), (1, 1, 5, 3)) == 'product'
  assert name((2, 8, 8, 5), (1, 1, 5, 3), stride=2) == 'convolution'
  assert name((2, 8, 8, 4), (1, 1, 2, 4), groups=2) == 'convolution'
  pads = ((0, 0), (0, 1))
  assert name((2, 8, 8, 5), (1, 1, 5, 3), padding=pads) == 'convolution'
  patches = ((2, 32, 32, 3), (4, 4, 3, 64))
  assert name(*patches, stride=4) == 'patches'
  for changed in (
    dict(), dict(stride=2), dict(stride=4, platform='cpu'), dict(stride=4, dilation=2),
    dict(stride=4, platform='cuda'),
  ):  # fmt: skip
    assert name(*patches, **changed) == 'convolution'
  assert name((2, 32, 32, 5), (4, 4, 5, 64), stride=4) == 'convolution'
  by_channel = dict(groups=4, stride=2)
  assert name((2, 8, 8, 4), (7, 7, 1, 4), 'cpu', 'bfloat16', **by_channel) == 'taps'
  assert name((2, 8, 8, 4), (7, 7, 1, 4), 'cuda', **by_channel) == 'convolution'
  assert name((2, 8, 8, 4), (7, 7, 1, 8), 'cpu', **by_channel) == 'convolution'
  assert name((2, 32, 32, 4), (12, 11, 1, 4), 'cpu', groups=4) == 'convolution'


def test_what_is_a_stem():
  def refusal(x_shape, w_shape, **options):
    x, w = (jax.ShapeDtypeStruct(s, 'float32') for s in (x_shape, w_shape))
    return space_to_depth.refusal(describe(x, w, **options))

  stem = ((2, 32, 32, 3), (7, 7, 3, 64))
  assert refusal(*stem, stride=2) is refusal(*stem, stride=4) is None
  bad = (dict(), dict(stride=3), dict(stride=(2, 4)), dict(stride=2, dilation=2))
  for options in (*bad, dict(stride=8)):
    assert 'stride 2 or 4' in refusal(*stem, **options).nearest
  assert refusal((2, 32, 32, 5), (7, 7, 5, 64), stride=2).reason.startswith(
    'channels=5'
  )
  assert refusal((2, 32, 32, 3), (1, 7, 3, 64), stride=2) is not None


# Options, and how many convolutions there are at least; by taps the filter's gradient.
LOOPS = (
  (dict(), 4),
  (dict(groups=2), 4),
  (dict(groups=4), 1),
  (dict(stride=2, dilation=2), 4),
)


@pytest.mark.parametrize('options, least', LOOPS)
def test_in_a_loop_all_are_of_the_order_that_is_fast(options, least):
  """XLA computes another order by a naive loop, inside a loop on the CPU."""
  shapes = (2, 9, 9, 4), (3, 3, 4 // options.get('groups', 1), 4)
  x, w, *_ = arrays(*shapes, options, np.float32)

  def slope(implementation, x, w):
    apply = functools.partial(conv2d, **options, implementation=implementation)

    def step(w, _):
      return w - jax.grad(lambda w: jnp.tanh(apply(x, w)).sum())(w) / 9, None

    return jax.grad(lambda w: (lax.scan(step, w, None, length=2)[0] ** 2).sum())(w)

  found = jax.jit(functools.partial(slope, 'xla')).lower(x, w).compile()
  expected = jax.jit(functools.partial(slope, 'reference'))(x, w)
  np.testing.assert_allclose(found(x, w), expected, rtol=1e-4, atol=1e-4)
  labels = re.findall(r'dim_labels=([^\s,]*)', found.as_text())
  assert len(labels) >= least and set(labels) == {'b01f_01io->b01f'}


def test_depthwise_filter_gradients_do_not_multiply_all_pairs_of_channels():
  x, w = jnp.ones((4, 16, 16, 64)), jnp.ones((3, 3, 1, 64))
  loss = lambda w: conv2d(x, w, groups=64, implementation='xla').sum()
  cost = jax.jit(jax.grad(loss)).lower(w).compile().cost_analysis()
  assert cost['flops'] < 4 * (2 * 4 * 16 * 16 * 9 * 64)


def operations(platform, function, *args) -> list[str]:
  """The convolutions and products of a program for a platform, without names."""
  text = jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()
  lines = [line for line in text.splitlines() if re.search('convolution|dot_gen', line)]
  return [re.sub(r'%\S+', '', line).strip() for line in lines]


@pytest.mark.parametrize(
  'groups, stride, dilation, dtype',
  ((1, 2, 1, 'bfloat16'), (4, 2, 1, 'float32'), (32, 1, 2, 'bfloat16')),
)
def test_on_cuda_the_gradients_are_what_autodiff_makes(groups, stride, dilation, dtype):
  """cuDNN's routines are found by that pattern."""
  x, w = jnp.ones((2, 9, 8, 32), dtype), jnp.ones((3, 3, 32 // groups, 64), dtype)
  options = dict(stride=stride, dilation=dilation, groups=groups)

  ours = functools.partial(conv2d, **options, implementation='xla')

  def gradients(function):
    loss = lambda x, w: jnp.sin(function(x, w)).sum()
    return sorted(operations('cuda', jax.grad(loss, argnums=(0, 1)), x, w))

  first, second = gradients(ours), gradients(alone(options))
  assert first == second and len(first) == 3


def test_half_precision_on_each_platform():
  """What has an epilogue leaves the sums in float32, but for cuDNN."""
  x, w = jnp.ones((2, 8, 8, 8), jnp.bfloat16), jnp.ones((3, 3, 8, 8), jnp.bfloat16)
  scale = jnp.ones(8)
  bare = functools.partial(conv2d, implementation='xla')
  scaled = functools.partial(bare, scale=scale)
  ends = lambda *args: [line.split('-> ')[-1] for line in operations(*args)]
  for platform, dtype in (('cpu', 'f32'), ('tpu', 'f32'), ('cuda', 'bf16')):
    assert ends(platform, scaled, x, w) == [f'tensor<2x8x8x8x{dtype}>']
    assert ends(platform, bare, x, w) == ['tensor<2x8x8x8xbf16>']
    assert ends(platform, scaled, x, w[:1, :1]) == ['tensor<2x8x8x8xf32>']
  # Strided and dilated: jax issue 37922.
  both = functools.partial(bare, stride=2, dilation=2)
  assert ends('cuda', both, x, w) == ['tensor<2x4x4x8xf32>']
