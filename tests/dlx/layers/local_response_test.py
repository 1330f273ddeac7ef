"""Local response normalisation: by hand, and as torch's."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers.local_response import local_response_norm


class LocalResponseTest(parameterized.TestCase):
  def test_by_hand(self):
    x = jnp.array([[1.0, 2.0, 3.0, 4.0]])
    # Windows of 3: sums of squares 5, 14, 29, 25; alpha / size is 1.
    found = local_response_norm(x, size=3, alpha=3, beta=0.5, k=4)
    np.testing.assert_allclose(found[0], x[0] / np.sqrt([9, 18, 33, 29]), rtol=1e-6)
    # Of an even size: the channel before and this one.
    found = local_response_norm(x, size=2, alpha=2, beta=1, k=1)
    np.testing.assert_allclose(found[0], x[0] / np.array([2, 6, 14, 26]), rtol=1e-6)

  def test_bfloat16_is_summed_in_float32(self):
    # In bfloat16 256 + 1 is 256: there all sums would be equal.
    x = jnp.ones((1, 5), jnp.bfloat16).at[0, 2].set(16)
    found = local_response_norm(x, alpha=5, beta=1, k=0)
    self.assertEqual(found.dtype, jnp.bfloat16)
    wanted = np.array([1, 1, 16, 1, 1]) / np.array([258, 259, 260, 259, 258])
    np.testing.assert_allclose(found[0].astype(jnp.float32), wanted, rtol=2**-8)

  @parameterized.parameters((5, 1e-4, 0.75, 2.0), (4, 2.0, 0.5, 1.0))
  def test_value_and_gradient_are_those_of_torch(self, size, alpha, beta, k):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 7))
    tx = torch.tensor(np.array(x.transpose(0, 3, 1, 2)), requires_grad=True)
    ty = torch.nn.functional.local_response_norm(tx, size, alpha, beta, k)
    dy = torch.linspace(-1, 1, ty.numel()).reshape(ty.shape)
    ty.backward(dy)
    norm = jax.jit(lambda x: local_response_norm(x, size, alpha, beta, k))
    y, pullback = jax.vjp(norm, x)
    dx = pullback(jnp.array(dy.numpy()).transpose(0, 2, 3, 1))[0]
    np.testing.assert_allclose(y.transpose(0, 3, 1, 2), ty.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(
      dx.transpose(0, 3, 1, 2), tx.grad.numpy(), rtol=1e-4, atol=1e-6
    )

  def test_refuses_an_empty_window(self):
    with self.assertRaisesRegex(ConfigError, 'size=0 is not allowed'):
      local_response_norm(jnp.zeros((1, 2)), size=0)


if __name__ == '__main__':
  absltest.main()
