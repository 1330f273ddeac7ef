"""`features` of every classifier: what its head reads."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig
from dlx.layers.recurrent.cells import CELLS
from dlx.models.alexnet import cifar_alexnet
from dlx.models.cnn import CNN
from dlx.models.convnext import ConvNeXt
from dlx.models.densenet import DenseNet
from dlx.models.inception import cifar_googlenet
from dlx.models.inception_tables import GOOGLENET, kept
from dlx.models.inverted_residual import InvertedResidualNet, Stage
from dlx.models.lenet import LeNet
from dlx.models.mlp import MLP
from dlx.models.modern_cnn import ModernCNN
from dlx.models.resnet import ResNet
from dlx.models.text_classifier import TextClassifier
from dlx.models.text_cnn import TextCNN
from dlx.models.vgg import cifar_vgg
from dlx.models.vit import ViT

IMAGES = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
LARGER = jax.random.normal(jax.random.key(1), (3, 16, 16, 1))
TOKENS = jnp.array([[3, 1, 4, 0], [1, 5, 0, 0]])
LATE = (False, False, True, True, True)
BLOCK = BlockConfig(width=8, num_heads=2)
INCEPTION = {'stages': kept(GOOGLENET, (1, 1, 1)), 'width': 1 / 64}
CLASSIFIERS = {  # The model, its inputs, width of its features.
  'cnn': (CNN((2,), dense=6), IMAGES, 6),
  'mlp': (MLP((7, 5), 10), IMAGES, 5),
  'densenet': (DenseNet((1, 1), 2, 3), IMAGES, 7),
  'inception': (cifar_googlenet(**INCEPTION), IMAGES, 6 + 6 + 2 + 2),
  'linear': (MLP((), 10), IMAGES, 64),
  'modern_cnn': (ModernCNN((2, 3)), IMAGES, 3),
  'convnext': (ConvNeXt((1,), (4,), patch=2), IMAGES, 4),
  'inverted': (
    InvertedResidualNet((Stage(2, 2, 1, 2),), 2, last=6, squeeze=0.5),
    IMAGES,
    6,
  ),
  'resnet': (ResNet((1, 1), (2, 4)), IMAGES, 4),
  'lenet': (LeNet((2, 2), (5, 4)), LARGER, 4),
  'alexnet': (cifar_alexnet(stride=1, width=0.02), IMAGES, 5),
  'vgg': (cifar_vgg(11, width=1, pools=LATE), IMAGES, 8),
  'vit': (ViT(1, BLOCK), IMAGES, 8),
  'vit_mean': (ViT(1, BLOCK, pool='mean'), IMAGES, 8),
  'text_cnn': (TextCNN(9, 3, (2, 3), 4), TOKENS, 8),
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
      outputs = getattr(outputs, 'logits', outputs)  # Beside those of other heads.
      return outputs, model.apply(variables, inputs, method='features')

    outputs, features = both(variables, inputs)
    self.assertEqual(features.shape, (len(inputs), width))
    head = variables['params']['head']
    wanted = features @ head['kernel'] + head['bias'][None]
    np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
