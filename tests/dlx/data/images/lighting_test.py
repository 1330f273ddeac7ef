"""Light along principal components: by hand, by NumPy, and how it is spread."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import lighting
from dlx.errors import ConfigError

X = jax.random.uniform(jax.random.key(0), (4, 5, 3))


class LightingTest(absltest.TestCase):
  def test_by_hand(self):
    # Along the first component by its eigenvalue: -0.5675 * 0.2175 of red, and so on.
    moved = lighting.lighting(X, [1.0, 0.0, 0.0]) - X
    wanted = np.broadcast_to([-0.12343125, -0.126324, -0.126933], X.shape)
    np.testing.assert_allclose(moved, wanted, atol=2.0**-22)
    np.testing.assert_array_equal(lighting.lighting(X, [0.0] * 3), X)
    # Another set: its components are the columns.
    moved = lighting.lighting(
      X, [0.0, 2.0, 0.0], eigenvalues=(1, 3, 1), components=((0, 1, 2),) * 3
    )
    np.testing.assert_allclose(moved - X, np.full(X.shape, 6.0), atol=2.0**-20)

  def test_components_are_orthonormal(self):
    columns = np.array(lighting.COMPONENTS)
    np.testing.assert_allclose(columns.T @ columns, np.eye(3), atol=3e-4)

  def test_one_vector_an_image_of_the_stated_spread(self):
    n = 2000
    keys = jax.random.split(jax.random.key(1), n)
    fn = jax.jit(jax.vmap(lighting.random_lighting, in_axes=(0, None)))
    moved = np.float64(fn(keys, X)) - np.float64(X)
    np.testing.assert_allclose(
      moved, np.broadcast_to(moved[:, :1, :1], moved.shape), atol=2.0**-22
    )
    amounts = moved[:, 0, 0] @ np.linalg.inv(lighting.COMPONENTS).T
    amounts /= lighting.EIGENVALUES
    # Independent, of deviation 0.1; 5 standard errors. Rounding at the third component
    # is 2**-24 / 0.0045.
    self.assertLess(np.abs(amounts.mean(0)).max(), 0.5 / np.sqrt(n))
    np.testing.assert_allclose(
      np.cov(amounts.T), 0.01 * np.eye(3), atol=5 * 0.01 * np.sqrt(2 / n)
    )

  def test_dtype_stays(self):
    for dtype in (jnp.bfloat16, jnp.float32):
      out = jax.eval_shape(lighting.random_lighting, jax.random.key(0), X.astype(dtype))
      self.assertEqual((out.shape, out.dtype), (X.shape, dtype))

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'image of 1 channels'):
      lighting.lighting(X[..., :1], [0.0] * 3)
    with self.assertRaisesRegex(ConfigError, 'deviation=-1'):
      lighting.random_lighting(jax.random.key(0), X, deviation=-1)


if __name__ == '__main__':
  absltest.main()
