"""ViT: published counts, patches by hand, symmetry without positions, rollout."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.block_config import BlockConfig
from dlx.models import vit
from dlx.models.vit import ViT

B16 = BlockConfig(width=768, num_heads=12)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)


def small(**fields):
  """A model from the fields of its own and those of its blocks."""
  fields = {**dict(patch=4, num_layers=2, num_heads=2, width=16), **fields}
  own = {name: fields.pop(name) for name in list(fields) if hasattr(ViT, name)}
  return ViT(fields.pop('num_layers'), BlockConfig(**fields), **own)


@functools.cache
def initial(model):
  variables = jax.jit(lambda k: model.init(k, IMAGES, train=False))(jax.random.key(0))
  # The head starts at 0, which hides everything before it.
  head = variables['params']['head']
  kernel = np.random.default_rng(1).normal(size=head['kernel'].shape)
  head = {**head, 'kernel': jnp.asarray(kernel, jnp.float32)}
  return variables, {'params': {**variables['params'], 'head': head}}


def shapes(model, side, channels):
  images = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
  return jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False), images
  )['params']


class ViTTest(parameterized.TestCase):
  @parameterized.named_parameters(
    # arXiv:2010.11929, B/16 on 224 x 224 pixels: 196 patches and a class token.
    ('b16', ViT(12, B16, 1000, 16), 224, 3, 86_567_656, 197),
    ('b16_mean', ViT(12, B16, 1000, 16, pool='mean'), 224, 3, 86_566_120, 196),
    (
      'mnist',
      ViT(6, BlockConfig(width=64, num_heads=4), pool='mean'),
      28,
      1,
      304_906,
      49,
    ),
  )
  def test_parameters_and_tokens(self, model, side, channels, count, tokens):
    params = shapes(model, side, channels)
    self.assertEqual(sum(x.size for x in jax.tree.leaves(params)), count)
    self.assertEqual(params['position_embedding'].shape[0], tokens)

  def test_patches_by_hand(self):
    # Channel 0 counts pixels of a 4 x 6 image, channel 1 is its negative.
    count = np.arange(24).reshape(1, 4, 6, 1)
    found = vit.patches(jnp.asarray(np.concatenate([count, -count], -1)), 2)
    self.assertEqual(found.shape, (1, 6, 8))
    self.assertEqual(found[0, 0].tolist(), [0, 0, 1, -1, 6, -6, 7, -7])
    self.assertEqual(found[0, 4].tolist(), [14, -14, 15, -15, 20, -20, 21, -21])

  def test_patch_embedding_is_the_convolution_of_the_paper(self):
    rng = np.random.default_rng(2)
    kernel = jnp.asarray(rng.normal(size=(4, 4, 3, 5)), jnp.float32)
    image = jnp.asarray(rng.normal(size=(2, 8, 12, 3)), jnp.float32)
    conv = jax.lax.conv_general_dilated(
      image, kernel, (4, 4), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    found = vit.patches(image, 4) @ kernel.reshape(48, 5)
    np.testing.assert_allclose(found, conv.reshape(2, 6, 5), atol=48 * 2**-20)

  @parameterized.parameters(3, 5, 16, 0)
  def test_refuses_patches_that_do_not_tile(self, patch):
    with self.assertRaisesRegex(ConfigError, f'patch={patch} is not allowed on 8 x 8'):
      shapes(small(patch=patch), 8, 1)

  def test_refuses_other_pools(self):
    with self.assertRaisesRegex(ValueError, "pool='max' is not allowed"):
      shapes(small(pool='max'), 8, 1)

  @parameterized.parameters('token', 'mean')
  def test_order_of_patches_matters_by_position_alone(self, pool):
    model = small(pool=pool)
    _, variables = initial(model)
    flat = {**variables['params']}
    flat['position_embedding'] = jnp.zeros_like(flat['position_embedding'])
    apply = jax.jit(functools.partial(model.apply, train=False))
    swapped = jnp.concatenate([IMAGES[:, 4:], IMAGES[:, :4]], 1)
    gap = lambda v: np.abs(apply(v, IMAGES) - apply(v, swapped)).max()
    # Logits of size 4 from sums of 16 products.
    self.assertLess(gap({'params': flat}), 4e-5)
    self.assertGreater(gap(variables), 4e-4)

  def test_first_logits_are_zero_and_wide(self):
    model = small(dtype=jnp.bfloat16)
    variables, _ = initial(model)
    self.assertEqual({x.dtype for x in jax.tree.leaves(variables)}, {np.dtype('f4')})
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, IMAGES)
    self.assertEqual(logits.dtype, np.float32)
    np.testing.assert_array_equal(logits, np.zeros((2, 10)))

  def test_attention_and_rollout_rows_sum_to_one(self):
    model = small()
    weights = jax.jit(functools.partial(model.apply, method='attention'))(
      initial(model)[1], IMAGES
    )
    self.assertEqual(weights.shape, (2, 2, 2, 5, 5))
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    rolled = vit.rollout(weights)
    self.assertEqual(rolled.shape, (2, 5, 5))
    np.testing.assert_allclose(rolled.sum(-1), 1, atol=1e-6)


class RolloutTest(parameterized.TestCase):
  def test_two_layers_by_hand(self):
    # Mixed with the identity: layer 1 [[1/2, 1/2], [0, 1]] (both heads alike), layer 2
    # [[3/4, 1/4], [1/4, 3/4]] (heads [1, 0] and [0, 1] in turn). Product, layer 2 left.
    first = [[[0, 1], [0, 1]]] * 2
    second = [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]
    weights = jnp.asarray([first, second], jnp.float32)[:, None]
    want = [[[0.375, 0.625], [0.125, 0.875]]]
    np.testing.assert_allclose(vit.rollout(weights), want, atol=1e-7)

  def test_token_maps(self):
    weights = jnp.arange(25.0).reshape(1, 1, 5, 5)
    found = vit.token_maps(weights, (2, 2), 'token')
    self.assertEqual(found.tolist(), [[[[1, 2], [3, 4]]]])
    found = vit.token_maps(weights[:, :, :4, :4], (2, 2), 'mean')
    self.assertEqual(found.tolist(), [[[[7.5, 8.5], [9.5, 10.5]]]])


if __name__ == '__main__':
  absltest.main()
