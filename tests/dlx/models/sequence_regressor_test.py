"""The regressor reads the last output of its stack."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.recurrent.cells import cell_by_name
from dlx.layers.recurrent.stack import RecurrentStack
from dlx.models.sequence_regressor import SequenceRegressor


class SequenceRegressorTest(absltest.TestCase):
  def test_is_a_linear_layer_on_the_last_output(self):
    cell = cell_by_name('gru')
    model = SequenceRegressor(cell, (4, 3), num_outputs=2)
    x_BTD = jax.random.normal(jax.random.key(0), (5, 7, 2))
    params = model.init(jax.random.key(1), x_BTD, train=False)['params']
    stack = {'params': params['encoder']}
    h_BTH, _ = RecurrentStack(cell, (4, 3)).apply(stack, x_BTD, train=False)
    dense = params['head']
    wanted = h_BTH[:, -1] @ dense['kernel'] + dense['bias'][None]
    found = model.apply({'params': params}, x_BTD, train=False)
    self.assertEqual(found.shape, (5, 2))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)

  def test_outputs_stay_float32_in_half_precision(self):
    model = SequenceRegressor(cell_by_name('lstm'), (4,), dtype=jnp.bfloat16)
    x_BTD = jnp.ones((1, 3, 2))
    shape = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), x_BTD, train=False)[0]
    )
    self.assertEqual(shape.dtype, jnp.float32)


if __name__ == '__main__':
  absltest.main()
