"""RandAugment: every operation is the function of its name."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

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
  'posterize_more': lambda s: color.posterize(X, 4 - int(4 * abs(s))),
  'invert': lambda s: 1 - X,
  'solarize_add': lambda s: jnp.where(
    X < 128 / 255, jnp.minimum(X + abs(s) * 110 / 255, 1), X
  ),
}


class RandAugmentTest(parameterized.TestCase):
  def test_operations(self):
    self.assertEqual(set(EXPECTED), set(randaugment.ALL))
    fn = jax.jit(lambda which, s: randaugment.operation(X, which, s))
    parts = jax.jit(
      lambda s: {name: part(s) for name, part in EXPECTED.items()}, static_argnums=0
    )
    for strength in (-1.0, 0.4):
      expected = parts(strength)
      for which, name in enumerate(randaugment.ALL):
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

  @parameterized.parameters(3, 9, 10)
  def test_what_the_increasing_form_adds_is_that_of_pillow(self, level):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(levels)
    added = [min(255, i + int(level * 11)) if i < 128 else i for i in range(256)]
    bits = 4 - int(level / 10 * 4)
    wanted = {
      # Pillow has no 0 bits.
      'posterize_more': ImageOps.posterize(picture, bits) if bits else 0 * levels,
      'invert': ImageOps.invert(picture),
      'solarize_add': picture.point(added),
    }
    fn = jax.jit(randaugment.operation)
    image = jnp.asarray(levels[..., None]) / np.float32(255)
    for name, result in wanted.items():
      found = fn(image, randaugment.ALL.index(name), -level / 10)[..., 0] * 255
      # Of the 110 levels that are added timm's whole numbers are up to one less.
      np.testing.assert_allclose(
        found, np.float32(result), atol=1 if 'add' in name else 1e-3, err_msg=name
      )

  def test_the_increasing_form(self):
    self.assertLen(randaugment.INCREASING, 15)
    self.assertLessEqual(set(randaugment.INCREASING), set(randaugment.ALL))
    chosen = randaugment.increasing(9, 0.5)
    self.assertEqual((chosen['magnitude'], chosen['spread']), (27, 1.5))
    # Of one operation with probability 1/2 a quarter of the images stays as it was.
    n = 400
    only = {**chosen, 'operations': ('solarize_add',)}
    fn = jax.jit(
      jax.vmap(
        lambda key: randaugment.randaugment(key, jnp.zeros((2, 2, 1)), layers=1, **only)
      )
    )
    added = np.float64(fn(jax.random.split(jax.random.key(0), n))[:, 0, 0, 0])
    done = added > 0
    self.assertLess(abs(done.mean() - 0.5), 5 * 0.5 / np.sqrt(n))
    levels = added[done] * 255 / 11
    # A normal of mean 9 and deviation 0.5, cut at 10: 2 deviations.
    self.assertLessEqual(levels.max(), 10 + 1e-4)
    self.assertLess(abs(np.median(levels) - 9), 5 * 0.5 * 1.2533 / np.sqrt(n / 2))
    self.assertBetween(levels.std(), 0.4, 0.6)

  def test_no_layers(self):
    out = randaugment.randaugment(jax.random.key(0), X, layers=0)
    chex.assert_trees_all_equal(out, X)

  @parameterized.parameters(
    (dict(spread=-1), 'spread=-1'),
    (dict(probability=2), 'probability=2'),
    (dict(operations=()), 'one or more of identity, rotate'),
    (dict(operations=('blur',)), "operations=.'blur',. is not allowed"),
  )
  def test_refuses_options(self, options, message):
    with self.assertRaisesRegex(ConfigError, message):
      randaugment.randaugment(jax.random.key(0), X, **options)
    with self.assertRaisesRegex(ConfigError, 'level=11'):
      randaugment.increasing(11)

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'magnitude=31'):
      randaugment.randaugment(jax.random.key(0), X, magnitude=31)


if __name__ == '__main__':
  absltest.main()
