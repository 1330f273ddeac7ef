"""What a run carries: averaged parameters and named random streams."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.state import create, stream, streams


class AveragedTest(absltest.TestCase):
  def test_the_average_where_one_is_kept(self):
    params, ema = {'w': jnp.ones(2)}, {'w': jnp.zeros(2)}
    key = jax.random.key(0)
    self.assertIs(create(params, (), key, ema=ema).averaged, ema)
    self.assertIs(create(params, (), key).averaged, params)


class StreamsTest(parameterized.TestCase):
  def test_a_stream_depends_on_its_name_alone(self):
    key = jax.random.key(3)
    a, b = streams(key, 'noise', 'labels')
    again = stream(key, 'labels')
    data = lambda k: jax.random.key_data(k).tolist()
    self.assertEqual(data(b), data(again))
    self.assertNotEqual(data(a), data(b))

  @parameterized.parameters(*range(4))
  def test_no_stream_is_the_key_of_a_micro_batch(self, name):
    key = jax.random.key(0)
    data = lambda k: tuple(jax.random.key_data(k).tolist())
    seen = {data(jax.random.fold_in(key, i)) for i in range(64)}
    self.assertNotIn(data(*streams(key, f'name {name}')), seen)

  def test_under_jit_and_vmap_as_outside(self):
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda k: jax.random.uniform(stream(k, 'noise'))
    together = jax.jit(jax.vmap(draw))(keys)
    np.testing.assert_array_equal(together, jnp.stack([draw(k) for k in keys]))


if __name__ == '__main__':
  absltest.main()
