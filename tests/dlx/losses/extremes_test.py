"""Every loss of no rows, of one, and beside a row of nan, inf or -inf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses

GOOD = np.float32([[0.1, 0.2, 0.3, 0.4], [0.2, -0.1, 0.5, 0.6], [0.3, 0.3, 0.3, 0.3]])
INF, NAN = np.inf, np.nan


def label(x):
  return jnp.arange(x.shape[0], dtype=jnp.int32)


def yes(x):
  return (label(x)[:, None] + jnp.arange(4)[None]) % 2


def half(x):
  return jnp.full(x.shape, 0.5, x.dtype)


def pixels(x):
  return x[:, None, None]


# By name: (loss of rows [B, 4], what it is where the first number of row 1 is inf, and
# where it is -inf). The answer of row 1 to the first number is yes, its label 1.
ALONE = {
  'squared_error': (lambda x: losses.squared_error(x, half(x)), INF, INF),
  'absolute_error': (lambda x: losses.absolute_error(x, half(x)), INF, INF),
  'huber': (lambda x: losses.huber(x, half(x)), INF, INF),
  'smooth_l1': (lambda x: losses.smooth_l1(x, half(x), 0.5), INF, INF),
  'pinball': (
    lambda x: losses.pinball(x, half(x)[:, 0], jnp.linspace(0.2, 0.8, 4)), INF, INF
  ),
  # Differences of logits that are not finite; -inf is no class.
  'softmax_cross_entropy': (
    lambda x: losses.softmax_cross_entropy(x, label(x)), NAN, 1.576
  ),
  'pixel_cross_entropy': (
    lambda x: losses.pixel_cross_entropy(pixels(x), label(x)[:, None, None]),
    NAN,
    1.576,
  ),
  'dice': (
    lambda x: losses.dice(pixels(x), label(x)[:, None, None]), NAN, 0.3594
  ),
  # The answer yes at inf is right. A box whose top is inf is empty; one of an infinite
  # area has no share.
  'heat_focal': (
    lambda x: losses.heat_focal(pixels(x), pixels(yes(x))), 0.3227, INF
  ),
  'box_giou': (lambda x: losses.box_giou(x[:, None], half(x)[:, None]), 1, NAN),
  'softmax_focal': (lambda x: losses.softmax_focal(x, label(x)), NAN, 0.992),
  'sigmoid_focal': (lambda x: losses.sigmoid_focal(x, yes(x)), NAN, INF),
  'sigmoid_binary_cross_entropy': (
    lambda x: losses.sigmoid_binary_cross_entropy(x, yes(x)), NAN, INF
  ),
  # No probability: row 1 says nothing that is defined.
  'binary_cross_entropy': (
    lambda x: losses.binary_cross_entropy(x, yes(x)), None, None
  ),
  'hinge': (lambda x: losses.hinge(x, yes(x)), 0.75, INF),
  'multiclass_hinge': (lambda x: losses.multiclass_hinge(x, label(x)), INF, 1.7),
  'pair_contrastive': (
    lambda x: losses.pair_contrastive(x, half(x), label(x) % 2), INF, INF
  ),
  'triplet': (lambda x: losses.triplet(x, half(x), 2 * half(x)), NAN, NAN),
  'gaussian_kl': (lambda x: losses.gaussian_kl(x, 0 * half(x)), INF, INF),
  'gaussian_kl_terms': (
    lambda x: losses.gaussian_kl_terms(0 * half(x), x).sum(1), NAN, INF
  ),
  'distillation': (lambda x: losses.distillation(x, half(x)), NAN, INF),
  'ctc': (
    lambda x: losses.ctc(
      jnp.stack([x, x, x], 1),
      label(x)[:, None] + 1,
      jnp.full(x.shape[:1], 3),
      jnp.ones(x.shape[:1], jnp.int32),
    ),
    NAN,
    NAN,
  ),
  'info_nce': (
    lambda x: losses.info_nce(x, half(x), jnp.eye(2, 4), 0.5).loss_B, NAN, None
  ),
  'discriminator_loss': (
    lambda x: losses.discriminator_loss('non_saturating', x[:, 0], x[:, 1]),
    0.644,
    INF,
  ),
  'generator_loss': (
    lambda x: losses.generator_loss('non_saturating', x[:, 0]), 0, INF
  ),
  'wasserstein_critic': (
    lambda x: losses.wasserstein_critic(x[:, 0], x[:, 1]), -INF, INF
  ),
  'wasserstein_generator': (lambda x: losses.wasserstein_generator(x[:, 0]), -INF, INF),
  'wasserstein_penalty': (
    lambda x: losses.wasserstein_penalty(
      lambda z: jnp.square(z).sum(1), x, half(x), jnp.full(x.shape[:1], 0.5)
    ),
    INF,
    INF,
  ),
  'gradient_penalty': (
    lambda x: losses.gradient_penalty(
      lambda z: jnp.square(z).sum((1, 2, 3)), pixels(x)
    ),
    INF,
    INF,
  ),
}  # fmt: skip
# Rows see each other: what one of them is reaches others.
TOGETHER = {
  'in_batch_info_nce': lambda x: losses.in_batch_info_nce(x, x, 0.5),
  'symmetric_info_nce': lambda x: losses.symmetric_info_nce(x, x, 0.5),
  'nt_xent': lambda x: losses.nt_xent(x, x, 0.5),
}
# A name, a number, of two batches, or sums of weights; each has tests of its own.
OTHERS = {'coral', 'example_weight', 'l1', 'l2', 'smoothed_entropy', 'threshold'}


@pytest.fixture(scope='module')
def values():
  """Of all losses by name, for the rows with nan, inf, -inf in row 1, and without."""
  call = jax.jit(lambda x: {name: loss(x) for name, (loss, *_) in ALONE.items()})
  rows = {None: GOOD}
  for bad in (NAN, INF, -INF):
    rows[str(bad)] = GOOD.copy()
    rows[str(bad)][1, : 4 if bad != bad else 1] = bad
  return {name: jax.device_get(call(x)) for name, x in rows.items()}


def test_the_table_holds_every_loss():
  functions = {n for n in losses.__all__ if n.islower()}
  assert functions == {*ALONE, *TOGETHER, *OTHERS}


@pytest.mark.parametrize('name', sorted(ALONE))
def test_one_bad_row_is_that_row_alone(name, values):
  _, high, low = ALONE[name]
  good = values[None][name]
  assert np.isfinite(good).all() and good.dtype == np.float32
  for bad, wanted in (('nan', NAN), ('inf', high), ('-inf', low)):
    found = values[bad][name]
    np.testing.assert_array_equal(found[[0, 2]], good[[0, 2]])
    if wanted is not None:
      np.testing.assert_allclose(found[1], wanted, rtol=1e-3)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_narrow_ones_are_widened(dtype):
  narrow = jax.ShapeDtypeStruct((3, 4), dtype)
  found = {
    name: jax.eval_shape(loss, narrow).dtype for name, (loss, *_) in ALONE.items()
  }
  assert found == dict.fromkeys(ALONE, np.float32)


def test_a_batch_without_rows_has_no_values_and_a_mean_of_count_0():
  none = jnp.zeros((0, 4))
  call = jax.jit(lambda x: {name: loss(x) for name, (loss, *_) in ALONE.items()})
  for name, found in call(none).items():
    assert found.shape == (0,) and found.dtype == jnp.float32, name
  slope = jax.jit(jax.grad(lambda x: sum(v.sum() for v in call(x).values())))
  assert slope(none).shape == (0, 4)
  for name, loss in TOGETHER.items():
    assert [x.shape for x in loss(none)] == [(0,)] * 3, name


def test_rows_that_see_each_other():
  for name, loss in TOGETHER.items():
    # One row has nothing to be told from: no loss.
    np.testing.assert_allclose(loss(jnp.eye(1, 4)).loss_B, 0, atol=1e-6, err_msg=name)
    bad = jnp.asarray(GOOD).at[1].set(jnp.nan)
    assert np.isnan(loss(bad).loss_B).all(), name


def test_a_teacher_of_nan_is_not_agreed_with():
  student = jnp.asarray(GOOD)
  found = losses.distillation(student, student.at[1, 0].set(jnp.nan))
  np.testing.assert_array_equal(np.isnan(found), [False, True, False])
  # What it holds impossible counts nothing.
  found = losses.distillation(student, student.at[1, 0].set(-jnp.inf))
  assert np.isfinite(found).all()
