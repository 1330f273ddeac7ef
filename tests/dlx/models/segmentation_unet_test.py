"""U-Net for segmentation: the published count, values as torch's layers, skips."""

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.segmentation_unet import SegmentationUNet, UNetBody, UpConv
from tests.dlx.models import by_shape


def drawn(model, x, seed=0, **more):
  """Variables of which none is 0; variances above 0."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, **more))
  rng = np.random.default_rng(seed)
  draw = lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype)
  variables = jax.tree.map(draw, shapes)
  if 'batch_stats' in variables:
    variables['batch_stats'] = jax.tree.map(jnp.abs, variables['batch_stats'])
  return variables


class SegmentationUNetTest(parameterized.TestCase):
  def test_the_published_form(self):
    model = SegmentationUNet(2)
    layers = by_shape.layers(model, (560, 560, 1))
    conv = lambda i, o: 9 * i * o + o
    levels = (64, 128, 256, 512, 1024)
    before = (1, *levels[:-1])
    total = sum(conv(i, o) + conv(o, o) for i, o in zip(before, levels, strict=True))
    for fine, coarse in zip(levels[:-1], levels[1:], strict=True):
      total += 4 * coarse * fine + fine + conv(2 * fine, fine) + conv(fine, fine)
    total += 64 * 2 + 2
    self.assertEqual(total, 31_030_658)
    self.assertEqual(layers[''].params, total)
    # A well-known Keras form has one layer more, 3x3 from 64 to 2, and one output.
    more = total - (64 * 2 + 2) + conv(64, 2) + (2 * 1 + 1)
    self.assertEqual(more, 31_031_685)
    sides = [layers[f'body/down_{i}_1'].output for i in range(5)]
    wanted = [(560 >> i, 560 >> i, c) for i, c in enumerate(levels)]
    self.assertEqual(sides, wanted)
    self.assertEqual(layers['body/up_conv_0'].output, (560, 560, 64))
    self.assertEqual(layers[''].output, (560, 560, 2))

  def test_batch_norm_takes_the_place_of_a_bias(self):
    plain, normed = (
      by_shape.parameters(SegmentationUNet(3, (4, 8), n), (4, 4, 1))
      for n in (False, True)
    )
    # Two convolutions on each of three places: 4, 8 and 4 channels.
    self.assertEqual(normed - plain, 2 * (4 + 8 + 4))

  def test_up_convolution_is_flaxs_and_by_hand(self):
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    variables = drawn(UpConv(6), x)
    found = jax.jit(UpConv(6).apply)(variables, x)
    params = variables['params']
    by_hand = np.einsum('bijc,uvco->biujvo', x, params['kernel']) + np.asarray(
      params['bias']
    )
    # Sums of 5 products.
    np.testing.assert_allclose(found, by_hand.reshape(2, 6, 8, 6), atol=1e-5)
    flipped = {**params, 'kernel': params['kernel'][::-1, ::-1]}
    flaxs = nn.ConvTranspose(6, (2, 2), (2, 2)).apply({'params': flipped}, x)
    np.testing.assert_allclose(found, flaxs, atol=1e-5)

  @parameterized.parameters(False, True)
  def test_equals_torch(self, batch_norm):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    model = SegmentationUNet(3, (4, 6, 8), batch_norm)
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 2))
    variables = drawn(model, x, train=False)
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)

    tensors = jax.tree.map(lambda a: torch.tensor(np.array(a)), variables)
    p, stats = tensors['params']['body'], tensors.get('batch_stats', {}).get('body')

    def twice(h, where):
      for i in range(2):
        layer = p[f'{where}_{i}']
        kernel = layer['kernel'].permute(3, 2, 0, 1)
        h = functional.conv2d(h, kernel, layer.get('bias'), padding=1)
        if batch_norm:
          name = f'{where}_norm_{i}'
          h = functional.batch_norm(
            h, stats[name]['mean'], stats[name]['var'], p[name]['scale'],
            p[name]['bias'], eps=1e-5,
          )  # fmt: skip
        h = h.relu()
      return h

    h = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
    skips = []
    for level in range(3):
      h = twice(functional.max_pool2d(h, 2) if level else h, f'down_{level}')
      skips.append(h)
    for level in (1, 0):
      up = p[f'up_conv_{level}']
      kernel = up['kernel'].permute(2, 3, 0, 1)
      h = functional.conv_transpose2d(h, kernel, up['bias'], stride=2)
      h = twice(torch.cat([skips[level], h], 1), f'up_{level}')
    head = tensors['params']['head']
    h = h.permute(0, 2, 3, 1) @ head['kernel'] + head['bias']
    scale = float(h.abs().max())
    # Ten layers of sums of up to 108 products.
    np.testing.assert_allclose(found, h.numpy(), atol=1e-5 * scale)

  def test_every_parameter_counts_and_features_are_what_the_head_reads(self):
    model = SegmentationUNet(3, (4, 6))
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    variables = drawn(model, x, seed=3, train=False)

    @jax.jit
    def run(variables):
      def total(v):
        logits = model.apply(v, x, train=False)
        return jnp.sin(jnp.asarray(logits)).sum(), logits

      features = model.apply(variables, x, method='features')
      return jax.grad(total, has_aux=True)(variables), features

    (grads, logits), features = run(variables)
    # Without what comes up from below the skip still tells images apart.
    body = {**variables['params']['body']}
    body['up_conv_0'] = jax.tree.map(jnp.zeros_like, body['up_conv_0'])
    params = {**variables['params'], 'body': body}
    (_, of_skip), _ = run({'params': params})
    self.assertGreater(float(jnp.abs(of_skip[0] - of_skip[1]).max()), 1e-3)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
      name = jax.tree_util.keystr(path)
      self.assertGreater(float(jnp.abs(g).max()), 1e-4, name)
    self.assertEqual(features.shape, (2, 4, 4, 4))
    head = jax.tree.map(np.asarray, variables['params']['head'])
    wanted = np.asarray(features) @ head['kernel'] + head['bias']
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)

  def test_bfloat16_gives_float32(self):
    model = SegmentationUNet(3, (4, 6), True, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 4, 4, 1))
    found = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), x, train=False)
    )
    logits, variables = found
    self.assertEqual((logits.shape, logits.dtype), ((1, 4, 4, 3), jnp.float32))
    dtypes = {p.dtype for p in jax.tree.leaves(variables)}
    self.assertEqual(dtypes, {jnp.dtype(jnp.float32)})

  def test_refuses_what_the_levels_do_not_divide(self):
    with self.assertRaisesRegex(ConfigError, '6 x 8 .* 3 levels .* multiples of 4'):
      by_shape.maps(UNetBody((2, 2, 2)), (6, 8, 1))


if __name__ == '__main__':
  absltest.main()
