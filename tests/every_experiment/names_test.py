"""Every layer of every experiment is named: no path holds a number that Flax counted.

`Dense_1` is another layer once a fork has added a Dense; `head` is not.
"""

import importlib
import re

from absl.testing import absltest, parameterized
import jax

from dlx.run import experiments_by_name
from dlx.state import leaves_by_path

COUNTED = re.compile(r'[A-Z]\w*_\d+')
# Parts of a model that no default has.
VARIANTS = {
  'mlp': {'batch_norm': True},
  'resnet': {'imagenet': True, 'depth': 18},
  'lenet': {'form': '1998'},
  'dcgan': {'discriminator_norm': 'spectral'},
  'vit': {'pool': 'token'},
  'char_gpt': {'positions': 'rotary', 'tie_embeddings': False},
}


def counted(tree):
  """Paths with a segment that Flax named."""
  paths = leaves_by_path(tree)
  return [p for p in paths if any(COUNTED.fullmatch(part) for part in p.split('/'))]


def state_of(name, **fields):
  module = importlib.import_module(experiments_by_name.module_name(name))
  built = module.build(module.Config(**fields))
  return jax.eval_shape(lambda: built.init(jax.random.key(0)))


class NamesTest(parameterized.TestCase):
  @parameterized.parameters(*experiments_by_name.names())
  def test_no_path_of_the_state_was_counted(self, name):
    self.assertEqual(counted(state_of(name)._replace(rng=())), [])

  @parameterized.parameters(*VARIANTS)
  def test_no_path_of_a_variant_was_counted(self, name):
    self.assertEqual(counted(state_of(name, **VARIANTS[name])._replace(rng=())), [])

  def test_what_is_counted_and_what_is_named(self):
    tree = {'Dense_0': 0, 'encoder': {'Conv_12': 1, 'block_0': 2}, 'head': 3}
    self.assertEqual(counted(tree), ['Dense_0', 'encoder/Conv_12'])


if __name__ == '__main__':
  absltest.main()
