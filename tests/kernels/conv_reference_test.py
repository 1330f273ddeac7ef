"""The reference of convolution: by hand, by lax and torch, and as linear maps."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.conv import conv1d, conv2d, epilogue, reference
from kernels.conv.case import ACTIVATIONS, FILTER, INPUT, Operands, describe
from tests.kernels.conv_cases import SWEEP, arrays


def test_hand_computed():
  x = jnp.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, :, :, None]
  w = jnp.array([[1.0, 10], [100, 1000]])[:, :, None, None]
  run = lambda **options: conv2d(x, w, implementation='reference', **options)[0, ..., 0]
  # 1 + 2 x 10 + 4 x 100 + 5 x 1000, and so on: the filter is not reversed.
  np.testing.assert_array_equal(run(padding='VALID'), [[5421, 6532], [8754, 9865]])
  # SAME of an even filter has its zeros at the end.
  same = [[5421, 6532, 603], [8754, 9865, 906], [87, 98, 9]]
  np.testing.assert_array_equal(run(), same)
  np.testing.assert_array_equal(run(stride=2), [[5421, 603], [87, 9]])
  np.testing.assert_array_equal(run(dilation=2, padding='VALID'), [[9731]])
  np.testing.assert_array_equal(
    run(padding=((1, 0), (0, 0)), stride=(1, 2)), [[2100], [5421], [8754]]
  )


def test_groups_by_hand():
  """Outputs 0 to 2 read channels 0 and 1, outputs 3 to 5 channels 2 and 3."""
  x = jnp.array([1.0, 10, 100, 1000]).reshape(1, 1, 1, 4)
  w = jnp.array([[1.0, 2, 3, 4, 5, 6], [7, 8, 9, 1, 2, 3]]).reshape(1, 1, 2, 6)
  y = conv2d(x, w, groups=2, implementation='reference')
  np.testing.assert_array_equal(y[0, 0, 0], [71, 82, 93, 1400, 2500, 3600])


def test_epilogue_by_hand():
  x = jnp.array([1.0, 2, -3, 0]).reshape(1, 2, 2, 1)
  y = conv2d(
    x, jnp.array([2.0, -1]).reshape(1, 1, 1, 2), scale=jnp.array([3.0, 1]),
    shift=jnp.array([1.0, 2]), residual=jnp.full((1, 2, 2, 2), -0.5),
    activation='relu6', implementation='reference',
  )  # fmt: skip
  # 2 x 3 + 1 - 0.5 = 6.5, cut to 6; -1 + 2 - 0.5 = 0.5; 12.5, -0.5; -17.5, 4.5; ...
  wanted = [[6, 0.5], [6, 0], [0, 4.5], [0.5, 1.5]]
  np.testing.assert_array_equal(y.reshape(4, 2), wanted)


def test_conv1d_by_hand():
  x = jnp.array([1.0, 2, 3, 4]).reshape(1, 4, 1)
  w = jnp.array([1.0, 10]).reshape(2, 1, 1)
  run = lambda **options: conv1d(x, w, implementation='reference', **options)[0, :, 0]
  np.testing.assert_array_equal(run(padding=(1, 0)), [10, 21, 32, 43])  # Causal.
  np.testing.assert_array_equal(run(padding='VALID', dilation=2), [31, 42])
  np.testing.assert_array_equal(run(stride=2), [21, 43])
  residual = jnp.ones((1, 2, 1))
  np.testing.assert_array_equal(
    run(stride=2, residual=-30 * residual, activation='relu'), [0, 13]
  )


@pytest.mark.parametrize('x_shape, w_shape, options', SWEEP)
def test_the_three_are_those_of_lax_in_float64(x_shape, w_shape, options):
  with jax.enable_x64(True):
    x, w, *_, dy = map(jnp.asarray, arrays(x_shape, w_shape, options))
    case = describe(x, w, **options)

    def plain(x, w):
      return lax.conv_general_dilated(
        x, w, case.stride, case.padding, rhs_dilation=case.dilation,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=case.groups,
      )  # fmt: skip

    @jax.jit
    def wanted(x, w, dy):
      y, pull = jax.vjp(plain, x, w)
      return y, *pull(dy)

    @jax.jit
    def found(x, w, dy):
      y = reference.forward(case, Operands(x, w))
      dx = reference.input_gradient(case.bare(INPUT), dy, w)
      return y, dx, reference.filter_gradient(case.bare(FILTER), x, dy)

    ours, theirs = found(x, w, dy), wanted(x, w, dy)
    assert ours[0].shape == case.out_shape
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_sums_of_half_precision_are_float32():
  """4096 + 1 + ... + 1 is 4096 where the sum is bfloat16, and 4296 rounds to 4288."""
  x = jnp.concatenate([jnp.array([4096.0]), jnp.ones(200)]).reshape(1, 1, 1, 201)
  w = jnp.ones((1, 1, 201, 1))
  half = lambda v: v.astype(jnp.bfloat16)
  y = conv2d(half(x), half(w), shift=jnp.array([-4096.0]), implementation='reference')
  assert y.dtype == jnp.bfloat16 and float(y[0, 0, 0, 0]) == 200


@pytest.mark.parametrize('name', ACTIVATIONS)
def test_activations_are_jax_nn_s_and_slopes_their_derivatives(name):
  theirs = {'gelu': lambda z: jax.nn.gelu(z, approximate=False)}
  theirs = theirs.get(name, getattr(jax.nn, name))
  with jax.enable_x64(True):
    z = jnp.linspace(-7.3, 7.1, 97)  # Not at the kinks.
    y = epilogue.activate(name, z)
    np.testing.assert_allclose(y, theirs(z), rtol=1e-12, atol=1e-15)
    slopes = jax.vmap(jax.grad(theirs))(z)
    np.testing.assert_allclose(epilogue.slope(name, z), slopes, rtol=1e-10, atol=1e-14)
    if name in epilogue.FROM_VALUE:
      np.testing.assert_array_equal(epilogue.slope(name, y), slopes)
  assert float(epilogue.activate(name, jnp.float32(jnp.nan))) != 0


TORCH = (
  (SWEEP[0], 'relu'), (SWEEP[2], 'silu'), (SWEEP[4], 'relu6'), (SWEEP[5], 'gelu'),
  (SWEEP[7], None),
)  # fmt: skip


@pytest.mark.parametrize('sizes, activation', TORCH)
def test_values_and_all_gradients_are_torch_s(sizes, activation):
  torch = pytest.importorskip('torch')
  x_shape, w_shape, options = sizes
  inputs = arrays(x_shape, w_shape, options)
  dy = inputs.pop()
  with jax.enable_x64(True):
    case = describe(*inputs[:2], **options)
    (top, bottom), (left, right) = case.padding
    tensors = [torch.tensor(v, requires_grad=True) for v in inputs]
    x, w, scale, shift, residual = tensors
    z = torch.nn.functional.conv2d(
      torch.nn.functional.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom)),
      w.permute(3, 2, 0, 1), stride=case.stride, dilation=case.dilation,
      groups=case.groups,
    ).permute(0, 2, 3, 1)  # fmt: skip
    z = z * scale + shift + residual
    y = z if activation is None else getattr(torch.nn.functional, activation)(z)
    y.backward(torch.tensor(dy))
    wanted = [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]

    @jax.jit
    def found(dy, x, w, *rest):
      names = ('scale', 'shift', 'residual')
      run = lambda x, w, *rest: conv2d(
        x, w, **dict(zip(names, rest)), **options, activation=activation,
        implementation='reference',
      )  # fmt: skip
      y, pull = jax.vjp(run, x, w, *rest)
      return y, *pull(dy)

    for a, b in zip(found(dy, *inputs), wanted, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
