"""The flags of residual networks give the nets of the papers, or are refused."""

from absl.testing import absltest, parameterized
import jax
import numpy as np

from dlx.errors import ConfigError
from experiments.vision.resnet import Config, Form, build


class FormTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'depth': 28, 'width': 16, 'form': Form(wide=10, dropout=0.3)}, 36479194),
    ({'depth': 20, 'width': 16, 'skip': False}, 269722),  # Plain: no less.
    ({'depth': 50, 'width': 64, 'imagenet': True}, 23520842),
  )
  def test_parameters_of_published_nets(self, fields, expected):
    built = build(Config(dataset='cifar10', **fields))
    state = jax.eval_shape(built.init, jax.random.key(0))
    found = sum(np.prod(x.shape) for x in jax.tree.leaves(state.params))
    self.assertEqual(found, expected)

  @parameterized.parameters(
    ({'form': {'dropout': 0.3}}, 'form.dropout|dropout=0.3'),
    ({'depth': 20, 'form': {'wide': 2}}, r'depth=20 .* 6 n \+ 4: 10, 22, 34'),
    ({'depth': 32, 'form': {'bottleneck': True}}, r'depth=32 .* 9 n \+ 2: 11, 29, 47'),
    ({'depth': 22, 'form': {}}, r'depth=22 .* 6 n \+ 2: 8, 20, 32'),
    ({'depth': 18, 'imagenet': True, 'form': {'wide': 2}}, 'imagenet=True'),
    ({'depth': 11, 'form': {'wide': 2, 'bottleneck': True}}, 'bottleneck=True'),
    ({'form': {'imagenet': 'd'}}, 'form.imagenet=d .* b without imagenet'),
    ({'depth': 4, 'form': {'wide': 1}}, 'depth=4 is not allowed'),
  )
  def test_what_is_no_net_is_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      Config(**{**fields, 'form': Form(**fields['form'])})


if __name__ == '__main__':
  absltest.main()
