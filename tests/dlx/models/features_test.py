"""`features` of every classifier: what its head reads."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig
from dlx.layers.recurrent.cells import CELLS
from dlx.models.cnn import CNN
from dlx.models.convnext import ConvNeXt
from dlx.models.inverted_residual import InvertedResidualNet, Stage
from dlx.models.mlp import MLP
from dlx.models.resnet import ResNet
from dlx.models.text_classifier import TextClassifier
from dlx.models.vit import ViT

IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
TOKENS = jnp.array([[3, 1, 4, 0], [1, 5, 0, 0]])
BLOCK = BlockConfig(width=8, num_heads=2)
CLASSIFIERS = {  # The model, its inputs, width of its features.
  'cnn': (CNN((2,), dense=6), IMAGES, 6),
  'mlp': (MLP((7, 5), 10), IMAGES, 5),
  'linear': (MLP((), 10), IMAGES, 64),
  'convnext': (ConvNeXt((1,), (4,), patch=2), IMAGES, 4),
  'inverted': (
    InvertedResidualNet((Stage(2, 2, 1, 2),), 2, last=6, squeeze=0.5),
    IMAGES,
    6,
  ),
  'resnet': (ResNet((1, 1), (2, 4)), IMAGES, 4),
  'vit': (ViT(1, BLOCK), IMAGES, 8),
  'vit_mean': (ViT(1, BLOCK, pool='mean'), IMAGES, 8),
  'text': (TextClassifier(9, 3, CELLS['gru'], (4,)), TOKENS, 4),
}


class FeaturesTest(parameterized.TestCase):
  @parameterized.parameters(*CLASSIFIERS)
  def test_the_head_of_the_features_gives_the_outputs(self, name):
    model, inputs, width = CLASSIFIERS[name]
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), inputs)
    # Heads start at 0 in some models: other numbers, or they are not tested.
    rng = np.random.default_rng(2)
    draw = lambda s: jnp.asarray(1 + 0.3 * rng.normal(size=s.shape), s.dtype)
    variables = jax.tree.map(draw, shapes)

    @jax.jit
    def both(variables, inputs):
      outputs = model.apply(variables, inputs, train=False)
      return outputs, model.apply(variables, inputs, method='features')

    outputs, features = both(variables, inputs)
    self.assertEqual(features.shape, (len(inputs), width))
    head = variables['params']['head']
    wanted = features @ head['kernel'] + head['bias'][None]
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
