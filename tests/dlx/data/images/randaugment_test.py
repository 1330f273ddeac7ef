"""RandAugment: every operation is the function of its name."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import color, filters, geometry, randaugment
from dlx.errors import ConfigError

X = jax.random.uniform(jax.random.key(0), (9, 9, 3))
GREY = dict(fill='constant', value=0.5)
matrix = lambda *entries: jnp.array(entries).reshape(2, 2)
move = lambda *by: geometry.affine(X, jnp.eye(2), jnp.array(by), **GREY)
# name -> what strength s does, s in [-1, 1]; 0.45 of 9 pixels are 4.05.
EXPECTED = {
  'identity': lambda s: X,
  'rotate': lambda s: geometry.rotate(X, 30 * s, **GREY),
  'shear_x': lambda s: geometry.affine(X, matrix(1, 0, 0.3 * s, 1), **GREY),
  'shear_y': lambda s: geometry.affine(X, matrix(1, 0.3 * s, 0, 1), **GREY),
  'translate_x': lambda s: move(0, 4.05 * s),
  'translate_y': lambda s: move(4.05 * s, 0),
  'brightness': lambda s: color.brightness(X, 1 + 0.9 * s),
  'color': lambda s: color.saturation(X, 1 + 0.9 * s),
  'contrast': lambda s: color.contrast(X, 1 + 0.9 * s),
  'sharpness': lambda s: filters.sharpness(X, 1 + 0.9 * s),
  'posterize': lambda s: color.posterize(X, 8 - jnp.round(4 * abs(s)).astype(int)),
  'solarize': lambda s: color.solarize(X, 1 - abs(s)),
  'autocontrast': lambda s: color.autocontrast(X),
  'equalize': lambda s: color.equalize(X),
}


class RandAugmentTest(parameterized.TestCase):
  def test_operations(self):
    self.assertEqual(set(EXPECTED), set(randaugment.OPERATIONS))
    fn = jax.jit(lambda which, s: randaugment.operation(X, which, s))
    parts = jax.jit(lambda s: {name: part(s) for name, part in EXPECTED.items()})
    for strength in (-1.0, 0.4):
      expected = parts(strength)
      for which, name in enumerate(randaugment.OPERATIONS):
        # Coordinates below 9 with 4 roundings, slope below 1 either way; the rest less.
        np.testing.assert_allclose(
          fn(which, strength), expected[name], atol=1e-5, err_msg=name
        )

  def test_keys_dtype_and_range(self):
    x = jnp.broadcast_to(X, (64, *X.shape)).astype(jnp.bfloat16)
    keys = jax.random.split(jax.random.key(0), 64)
    fn = jax.jit(jax.vmap(randaugment.randaugment))
    out = fn(keys, x)
    self.assertEqual((out.shape, out.dtype), (x.shape, x.dtype))
    self.assertGreaterEqual(float(out.min()), 0)
    self.assertLessEqual(float(out.max()), 1)
    chex.assert_trees_all_equal(out, fn(keys, x))
    # 13 * 13 pairs with signs are no identity: 64 draws give many pictures.
    self.assertGreater(len({row.tobytes() for row in np.array(out)}), 30)

  def test_no_layers(self):
    out = randaugment.randaugment(jax.random.key(0), X, layers=0)
    chex.assert_trees_all_equal(out, X)

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'magnitude=31'):
      randaugment.randaugment(jax.random.key(0), X, magnitude=31)


if __name__ == '__main__':
  absltest.main()
