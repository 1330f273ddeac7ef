"""A net that is trained at first and frozen afterwards: phases, marks, warm start."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run.checkpoint.checksums import checksum
from dlx.state import create
from dlx.train import auxiliary
from tests.same_bytes import same_bytes


def learn(net, x):
  return net + x


def keep(net, x):
  del x
  return net


class PhasesTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_learns_before_the_step_and_keeps_every_byte_from_it_on(self, first):
    net, x = jnp.float32(0.1), jnp.float32(1.0)
    step = jax.jit(lambda i, net: auxiliary.phases(i, first, learn, keep, net, x))
    for i in range(5):
      new = step(jnp.int32(i), net)
      self.assertEqual(same_bytes(new, net), i >= first)
      net = new

  def test_a_first_phase_of_no_steps_is_not_traced(self):
    def fail(*args):
      raise AssertionError

    self.assertEqual(auxiliary.phases(jnp.int32(0), 0, fail, keep, 1.5, 0.0), 1.5)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ({}, 1000, 300),
    ({}, 20, 20),
    ({'workdir': 'RUN'}, 1000, 0),
    ({'num_steps': 0}, 9, 0),
  )
  def test_first_steps(self, fields, most, wanted):
    self.assertEqual(auxiliary.Config(**fields).first_steps(most), wanted)

  @parameterized.parameters(
    ({'workdir': ''}, 'workdir= is not allowed: must be a workdir, or None.'),
    ({'num_steps': -1}, 'num_steps=-1 is not allowed: must be at least 0.'),
    ({'lr': 0.0}, 'lr=0.0 is not allowed: must be above 0.'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesWithLiteralMatch(ConfigError, f'Config.{message}'):
      auxiliary.Config(**fields)


class WaitingTest(absltest.TestCase):
  def test_the_net_is_the_old_one_until_the_other_is_frozen(self):
    make = lambda x: create(
      {'w': x}, {'m': x}, jax.random.key(0), model_state={'seen': x}, ema={'w': x}
    )
    old, new = make(jnp.float32(1)), make(jnp.float32(2))
    wait = jax.jit(auxiliary.waiting)
    self.assertTrue(
      same_bytes(wait(True, old, new)._replace(rng=()), new._replace(rng=()))
    )
    found = wait(False, old, new)
    for name in ('params', 'opt_state', 'ema'):
      self.assertTrue(same_bytes(getattr(found, name), getattr(old, name)), name)
    self.assertTrue(same_bytes(found.model_state, new.model_state))


class StillFrozenTest(absltest.TestCase):
  def test_one_bit_is_told(self):
    params = {'a': jnp.arange(3.0), 'b': jnp.ones((2, 2))}
    moved = {**params, 'b': params['b'].at[0, 0].set(np.nextafter(1, 2, dtype='f'))}
    start = jax.tree.map(checksum, moved)
    find = jax.jit(
      lambda done, marks, p: auxiliary.still_frozen(done, marks, p, checksum)
    )
    marks, still = find(False, start, params)
    self.assertEqual((float(still.total), float(still.count)), (0, 1))
    self.assertTrue(same_bytes(marks, jax.tree.map(checksum, params)))
    kept, still = find(True, marks, params)
    self.assertEqual(float(still.total), 1)
    kept, still = find(True, kept, moved)
    self.assertEqual(float(still.total), 0)
    self.assertTrue(same_bytes(kept, marks))


class WarmStartTest(absltest.TestCase):
  def test_reads_what_is_asked_for_and_writes_it(self):
    state = create({'w': jnp.zeros(2)}, (), jax.random.key(0), model_state={'a': 1})
    asked = []

    def restore(workdir, wanted):
      asked.append((workdir, wanted))
      return jnp.ones(2), {'path': workdir}

    read = lambda state: state.params['w']
    write = lambda state, found: state._replace(params={'w': found})
    self.assertIsNone(auxiliary.warm_start(None, restore, read, write))
    load = auxiliary.warm_start('RUN', restore, read, write)
    assert load is not None
    new, origin = load(state)
    self.assertEqual(origin, {'path': 'RUN'})
    np.testing.assert_array_equal(new.params['w'], jnp.ones(2))
    self.assertEqual(new.model_state, state.model_state)
    self.assertEqual(asked[0][0], 'RUN')
    np.testing.assert_array_equal(asked[0][1], jnp.zeros(2))


if __name__ == '__main__':
  absltest.main()
