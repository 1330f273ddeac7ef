"""Tests for dlx/train/steps.py: properties, then numbers by hand."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import optim
from dlx.errors import ConfigError
from dlx.state import Mean
from dlx.train import steps as lib


def loss_fn(params, model_state, batch, rng):
  """Weighted squared error of a linear model; `seen` counts rows."""
  del rng
  error_B = batch['x'] @ params['w'] + params['b'] - batch['y']
  total = (batch['weight'] * jnp.square(error_B)).sum()
  mae = Mean((batch['weight'] * jnp.abs(error_B)).sum(), batch['weight'].sum())
  state = {'seen': model_state['seen'] + batch['x'].shape[0]}
  return Mean(total, batch['weight'].sum()), (state, {'mae': mae})


def make_batch(n=12, d=3):
  rng = np.random.default_rng(0)
  return {
    'x': jnp.asarray(rng.normal(size=(n, d)), jnp.float32),
    'y': jnp.asarray(rng.normal(size=n), jnp.float32),
    'weight': jnp.asarray(rng.integers(0, 3, n), jnp.float32),
  }


PARAMS = {'w': jnp.array([0.5, -1.0, 2.0]), 'b': jnp.array(0.1)}
STATE = {'seen': jnp.int32(0)}


class GradientsTest(parameterized.TestCase):
  def test_hand_computed(self):
    batch = {
      'x': jnp.array([[1.0], [3.0]]),
      'y': jnp.array([0.0, 1.0]),
      'weight': jnp.array([1.0, 3.0]),
    }
    params = {'w': jnp.array([1.0]), 'b': jnp.array(0.0)}
    # Errors 1 and 2; loss (1*1 + 3*4)/4; dw = 2(1*1*1 + 3*2*3)/4; db = 2(1 + 6)/4.
    grads, state, metrics = lib.gradients(
      loss_fn, params, STATE, batch, jax.random.key(0)
    )
    chex.assert_trees_all_close(grads, {'w': jnp.array([9.5]), 'b': jnp.array(3.5)})
    chex.assert_trees_all_close(metrics['loss'], Mean(jnp.array(13.0), jnp.array(4.0)))
    self.assertEqual(int(state['seen']), 2)

  @parameterized.parameters(2, 3, 4, 6, 12)
  def test_micro_batches_equal_the_batch(self, k):
    batch = make_batch()
    one = lib.gradients(loss_fn, PARAMS, STATE, batch, jax.random.key(0))
    many = jax.jit(
      lambda: lib.gradients(
        loss_fn, PARAMS, STATE, batch, jax.random.key(0), micro_batches=k
      )
    )()
    # Sums of 12 terms of size below 20 in another order: 12 * 20 * eps.
    chex.assert_trees_all_close(one, many, atol=12 * 20 * 1.2e-7, rtol=0)

  def test_micro_batches_are_strided_rows(self):
    got = lib.strided({'x': jnp.arange(6)}, 2)['x']
    chex.assert_trees_all_equal(got, jnp.array([[0, 2, 4], [1, 3, 5]]))

  def test_micro_batches_have_keys_of_their_own(self):
    def noisy(params, model_state, batch, rng):
      noise = jax.random.normal(rng, ())
      loss, aux = loss_fn(params, model_state, batch, rng)
      return loss, (aux[0], {'noise': Mean(noise, jnp.ones(()))})

    key = jax.random.key(3)
    _, _, metrics = lib.gradients(
      noisy, PARAMS, STATE, make_batch(), key, micro_batches=3
    )
    wanted = sum(jax.random.normal(jax.random.fold_in(key, m), ()) for m in range(3))
    self.assertAlmostEqual(float(metrics['noise'].total), float(wanted), places=6)

  def test_scale_is_divided_out(self):
    batch = make_batch()
    one = lib.gradients(loss_fn, PARAMS, STATE, batch, jax.random.key(0))
    scaled = lib.gradients(
      loss_fn, PARAMS, STATE, batch, jax.random.key(0), scale=1024.0
    )
    chex.assert_trees_all_equal(one, scaled)  # A power of two costs no bit.

  def test_empty_batch_has_gradient_zero(self):
    batch = {**make_batch(), 'weight': jnp.zeros(12)}
    grads, _, _ = lib.gradients(loss_fn, PARAMS, STATE, batch, jax.random.key(0))
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, PARAMS))

  def test_gradients_of_narrow_parameters_accumulate_and_stay_wide(self):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    grads, _, _ = lib.gradients(
      loss_fn, params, STATE, make_batch(), jax.random.key(0), micro_batches=4
    )
    self.assertEqual({g.dtype for g in jax.tree.leaves(grads)}, {jnp.dtype('float32')})
    whole, _, _ = lib.gradients(loss_fn, params, STATE, make_batch(), jax.random.key(0))
    # Each of four products is rounded to bfloat16 (2**-8), their sum is not.
    chex.assert_trees_all_close(grads, whole, rtol=4 * 2**-8)


class UpdateTest(absltest.TestCase):
  def test_average_by_hand(self):
    ema = lib.average(jnp.array(0.0), jnp.array(1.0), 0.9, jnp.int32(0))
    self.assertAlmostEqual(float(ema), 0.9, places=6)  # Decay 1/10 at step 0.
    late = lib.average(jnp.array(0.0), jnp.array(1.0), 0.9, jnp.int32(10_000))
    self.assertAlmostEqual(float(late), 0.1, places=6)

  def test_a_decay_that_is_never_reached_is_told(self):
    # At step 999, the last of 1000: 1000 / 1009.
    told = lib.never_reached(0.995, 1000)
    self.assertRegex(told, r'ema_decay=0.995 is never reached: .* to 0.9911 in 1000')
    self.assertEqual(lib.never_reached(0.991, 1000), '')
    ema = [
      lib.average(jnp.array(0.0), jnp.array(1.0), d, jnp.int32(999))
      for d in (0.995, 0.999)
    ]
    self.assertEqual(*ema)

  def test_hold_keeps_old_bytes_where_frozen(self):
    new, old = (
      {'a': jnp.ones(2), 'b': {'c': jnp.ones(3)}},
      {'a': jnp.zeros(2), 'b': {'c': jnp.full(3, 7.0)}},
    )
    got = lib.hold({'a': False, 'b': jnp.array(True)}, new, old)
    chex.assert_trees_all_equal(got, {'a': jnp.ones(2), 'b': {'c': jnp.full(3, 7.0)}})

  def test_update_keeps_dtypes(self):
    params = {'w': jnp.ones(3, jnp.bfloat16)}
    tx = optim.adam(0.1)
    new, state = lib.update(
      tx, {'w': jnp.ones(3, jnp.bfloat16)}, tx.init(params), params
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(
      (new, state), (params, tx.init(params))
    )

  def test_an_average_of_bfloat16_arrives(self):
    params = {'w': jnp.array([1.0, -2.0], jnp.bfloat16)}
    ema = lib.initial_average(params, 0.999)
    chex.assert_trees_all_equal(ema, {'w': jnp.array([1.0, -2.0], jnp.float32)})
    constant = {'w': jnp.full(2, 1.2, jnp.bfloat16)}  # 1.203125.
    ema = jax.lax.fori_loop(
      10**4, 2 * 10**4, lambda i, e: lib.average(e, constant, 0.999, i), ema
    )
    # 1.203125 - 0.203125 * 0.999**10000, and the same from -2.
    np.testing.assert_allclose(ema['w'], [1.2031158, 1.2029800], atol=1e-4)
    with self.assertRaisesRegex(ConfigError, 'An average w of bfloat16 .*wide_copy'):
      lib.average(constant, constant, 0.999, jnp.int32(0))

  def test_narrow_parameters_need_an_optimiser_with_a_copy(self):
    params = {'w': jnp.ones(3, jnp.bfloat16)}
    tx = optax.sgd(0.1)
    with self.assertRaisesRegex(ConfigError, 'w of bfloat16 .* optim.in_float32'):
      lib.update(tx, params, tx.init(params), params)
    tx = optim.in_float32(tx)
    new, _ = lib.update(tx, params, tx.init(params), params)
    np.testing.assert_array_equal(new['w'].astype(jnp.float32), 0.8984375)  # Of 0.9.

  def test_all_finite_and_the_first_that_is_not(self):
    fine = {'a': jnp.ones(2), 'n': jnp.array([1, 2]), 'z': jnp.ones(1)}
    self.assertTrue(bool(lib.all_finite(fine)))
    self.assertIsNone(lib.first_non_finite(fine))
    bad = {**fine, 'b': {'c': jnp.array([1.0, jnp.inf])}, 'd': jnp.array(jnp.nan)}
    self.assertFalse(bool(lib.all_finite(bad)))
    self.assertEqual(lib.first_non_finite(bad)[0], 'b/c')

  def test_watch_changes_no_bit(self):
    x = jnp.array([1.5, -2.0])
    chex.assert_trees_all_equal(jax.jit(lambda x: lib.watch({'x': x}, 'g'))(x)['x'], x)


if __name__ == '__main__':
  absltest.main()
