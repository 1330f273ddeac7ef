"""MLP: parameter counts by hand, modes, dtypes, a net with known weights."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.models.mlp import MLP, PLACEMENT
from dlx.run import sharding
from dlx.state import leaves_by_path


def init(model, shape=(2, 8, 8, 1)):
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False)
  )


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


class MLPTest(parameterized.TestCase):
  @parameterized.parameters(
    # 64 * 10 + 10
    ((), False, 650, 0),
    # 64 * 32 + 32, 32 * 16 + 16, 16 * 10 + 10
    ((32, 16), False, 2080 + 528 + 170, 0),
    # No hidden biases but scale and shift; mean and variance of 32 and 16 units.
    ((32, 16), True, 2048 + 64 + 512 + 32 + 170, 96),
  )
  def test_parameter_counts(self, features, batch_norm, params, stats):
    variables = init(MLP(features, 10, batch_norm=batch_norm))
    self.assertEqual(size(variables['params']), params)
    self.assertEqual(size(variables.get('batch_stats', ())), stats)

  def test_layers_lie_in_pairs_over_tensor(self):
    # Units of layers 0 and 2, inputs of 1 and 3; 10 outputs over 4 devices: not.
    params = init(MLP((32, 16, 8), 10))['params']
    mesh = jax.sharding.AbstractMesh((2, 4), ('fsdp', 'tensor'))
    found = leaves_by_path(sharding.state_shardings(mesh, params, PLACEMENT))
    specs = {path: place.spec for path, place in found.items()}
    self.assertEqual(specs['hidden_0/kernel'], P('fsdp', 'tensor'))
    self.assertEqual(specs['hidden_1/kernel'], P('tensor', 'fsdp'))
    self.assertEqual(specs['hidden_2/kernel'], P('fsdp', 'tensor'))
    self.assertEqual(specs['head/kernel'], P('tensor', 'fsdp'))
    self.assertEqual(specs['hidden_2/bias'], P('tensor'))
    self.assertEqual(specs['hidden_1/bias'], P())
    alone = init(MLP((), 10))['params']
    [place] = [
      x.spec
      for path, x in leaves_by_path(
        sharding.state_shardings(mesh, alone, PLACEMENT)
      ).items()
      if 'kernel' in path
    ]
    self.assertEqual(place, P('tensor', 'fsdp'))

  def test_known_weights(self):
    # relu(x W + b) V + c by hand.
    params = {
      'hidden_0': {
        'kernel': jnp.array([[1.0, -1.0], [2.0, 1.0]]),
        'bias': jnp.array([0.0, -1.0]),
      },
      'head': {'kernel': jnp.array([[3.0], [5.0]]), 'bias': jnp.array([0.5])},
    }
    x = jnp.array([[1.0, 1.0], [-1.0, 2.0]])
    # Hidden: [3, -1 -> 0], [3, 2].
    got = MLP((2,), 1).apply({'params': params}, x, train=False)
    np.testing.assert_array_equal(got, [[9.5], [19.5]])

  def test_dropout_only_in_training(self):
    model, x = MLP((64,), 3, dropout=0.5, input_dropout=0.2), jnp.ones((4, 16))
    variables = model.init(jax.random.key(0), x, train=False)

    def apply(train: bool, seed: int) -> Any:
      rngs = {'dropout': jax.random.key(seed)}
      return model.apply(variables, x, train=train, rngs=rngs)

    np.testing.assert_array_equal(apply(False, 0), apply(False, 1))
    np.testing.assert_array_equal(apply(True, 0), apply(True, 0))
    self.assertFalse(np.array_equal(apply(True, 0), apply(True, 1)))

  def test_batch_norm_moves_its_statistics_in_training(self):
    model = MLP((4,), 2, batch_norm=True, momentum=0.75)
    x = jax.random.normal(jax.random.key(1), (8, 3)) + 2
    variables: Any = model.init(jax.random.key(0), x, train=False)
    new: Any = model.apply(variables, x, train=True, mutable=['batch_stats'])[1]
    hidden = x @ variables['params']['hidden_0']['kernel']
    stats = new['batch_stats']['norm_0']
    # From mean 0 and variance 1; sums of 8 numbers below 10.
    np.testing.assert_allclose(stats['mean'], 0.25 * hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(stats['var'], 0.75 + 0.25 * hidden.var(0), atol=1e-4)

  @parameterized.product(batch_norm=(False, True))
  def test_bfloat16_keeps_float32_parameters_and_outputs(self, batch_norm):
    model = MLP((8,), 2, batch_norm=batch_norm, dtype=jnp.bfloat16)
    variables = init(model)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(variables)}, {np.dtype('float32')}
    )
    out, state = jax.eval_shape(
      lambda v: model.apply(v, jnp.zeros((2, 64)), train=True, mutable=True), variables
    )
    self.assertEqual(out.dtype, jnp.float32)
    self.assertEqual({x.dtype for x in jax.tree.leaves(state)}, {np.dtype('float32')})

  def test_hidden_layers_compute_in_dtype(self):
    seen = []
    watch = lambda x: seen.append(x.dtype) or x
    init(MLP((8,), 2, activation=watch, dtype=jnp.bfloat16))
    self.assertEqual(seen, [jnp.bfloat16])


if __name__ == '__main__':
  absltest.main()
