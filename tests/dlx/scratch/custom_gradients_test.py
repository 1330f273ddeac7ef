"""Custom gradients: check_grads of each, the forms without a rule, and the extremes."""

import functools

import jax
import jax.numpy as jnp
from jax.test_util import check_grads, check_jvp, check_vjp
import numpy as np
import optax
import pytest

from dlx.scratch import custom_gradients as lesson

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3))


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def test_clip_gradient_within_the_bound_is_the_identity():
  # Also of second order; the bound is far from every gradient.
  function = jax.jit(lambda x: jnp.sin(lesson.clip_gradient(x, 1e3)))
  check_grads(function, (X,), order=2, modes=['rev'])
  np.testing.assert_array_equal(lesson.clip_gradient(X, 0.5), X)


@pytest.mark.parametrize('bound', [0.0, 0.5, np.full((2, 3), 0.7)])
def test_clip_gradient_outside_of_it(bound):
  g = RNG.normal(size=(2, 3))
  _, pull = jax.vjp(lesson.clip_gradient, jnp.asarray(X), jnp.asarray(bound))
  to_x, to_bound = pull(jnp.asarray(g))
  np.testing.assert_array_equal(to_x, np.clip(g, -bound, bound))
  np.testing.assert_array_equal(to_bound, np.zeros_like(bound))


def test_clip_gradient_bounds_a_recurrence():
  # d/dx of x_{t+1} = 3 x_t over 40 steps is 3^40; clipped at each step it is 1.
  def last(x, bound):
    for _ in range(40):
      x = 3 * lesson.clip_gradient(x, bound)
    return x

  assert jax.grad(last)(0.1, 1e30) == 3.0**40
  assert jax.grad(last)(0.1, 1.0) == 1.0


def test_clip_gradient_has_no_forward_mode():
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(lambda x: lesson.clip_gradient(x, 1.0), (X,), (X,))


def test_straight_through_has_the_derivatives_of_the_identity():
  # At whole numbers the values of both agree, too.
  whole = np.round(X * 3)
  identity = lambda x: x
  check_jvp(identity, functools.partial(jax.jvp, lesson.straight_through), (whole,))
  check_vjp(identity, functools.partial(jax.vjp, lesson.straight_through), (whole,))
  # The rule is linear in the tangent, which check_grads sees of its own derivative.
  rule = lambda t: jax.jvp(lesson.straight_through, (X,), (t,))[1]
  check_grads(rule, (X,), order=2)


def test_straight_through_is_the_form_with_stop_gradient():
  x = jnp.asarray(X * 5)
  other = lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x)
  loss = lambda f: jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(x * f(x)))))
  (a, slope_a), (b, slope_b) = loss(lesson.straight_through)(x), loss(other)(x)
  np.testing.assert_allclose(a, b, rtol=1e-14)
  np.testing.assert_allclose(slope_a, slope_b, rtol=1e-13, atol=1e-13)


def test_log1p_exp():
  check_grads(jax.jit(lesson.log1p_exp), (X * 5,), order=2)
  x = np.array([-1e4, -750.0, -50.0, 0.0, 50.0, 750.0, 1e4])
  value, slope = jax.vmap(jax.value_and_grad(lesson.log1p_exp))(x)
  np.testing.assert_allclose(value, np.logaddexp(x, 0), rtol=1e-15)
  np.testing.assert_allclose(slope, jax.nn.sigmoid(x), rtol=1e-15)
  second = jax.vmap(jax.grad(jax.grad(lesson.log1p_exp)))(x)
  assert np.isfinite(second).all()


@pytest.mark.parametrize('shape', [(4,), (3, 5), (2, 1, 3)])
def test_softmax_cross_entropy(shape):
  logits = RNG.normal(size=shape) * 3
  label = RNG.integers(shape[-1], size=shape[:-1])
  function = lambda logits: lesson.softmax_cross_entropy(logits, label)
  reference = optax.softmax_cross_entropy_with_integer_labels
  ours = jax.jit(jax.value_and_grad(lambda x: function(x).sum()))(logits)
  theirs = jax.jit(jax.value_and_grad(lambda x: reference(x, label).sum()))(logits)
  for a, b in zip(ours, theirs):
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


def test_softmax_cross_entropy_passes_check_grads():
  function = jax.jit(lambda x: lesson.softmax_cross_entropy(x, np.array([2, 0])))
  check_grads(function, (X * 3,), order=2, modes=['rev'])


def test_softmax_cross_entropy_at_extreme_logits():
  logits = np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]])
  label = np.array([0, 2])
  loss, pull = jax.vjp(lambda x: lesson.softmax_cross_entropy(x, label), logits)
  np.testing.assert_array_equal(loss, [0.0, 2e4])
  np.testing.assert_array_equal(pull(jnp.ones(2))[0], [[0, 0, 0], [1, 0, -1]])
