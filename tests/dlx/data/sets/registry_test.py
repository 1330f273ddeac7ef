"""The one registry of names: complete, of one kind each, one message."""

from absl.testing import absltest, parameterized

from dlx.data.sets import characters, graphs, images, registry, sentences, tables
from dlx.errors import ConfigError

LOOK_UP = {
  'images': images.images,
  'tables': tables.tabular,
  'graphs': graphs.graph,
  'sentences': sentences.sentences,
  'characters': characters.characters,
}


class RegistryTest(parameterized.TestCase):
  @parameterized.parameters(*registry.SETS)
  def test_a_name_is_known_to_its_kind_and_refused_by_the_others(self, name):
    own = registry.SETS[name].kind
    self.assertIn(own, registry.KINDS)
    for kind, look_up in LOOK_UP.items():
      if kind == own:
        self.assertEqual(look_up(name).name, name)
        continue
      message = f"dataset='{name}' holds {registry.KINDS[own]}, not"
      with self.assertRaisesRegex(ConfigError, message):
        look_up(name)

  @parameterized.parameters(
    ('tables', 'vine', 'Did you mean wine\\? For a table it must be one of wine, '),
    ('graphs', 'corra', 'Did you mean cora\\? For a graph'),
    ('characters', 'imdb', "dataset='imdb' is not known. For a text by characters"),
  )
  def test_unknown_names_get_the_nearest_and_the_list(self, kind, name, message):
    with self.assertRaisesRegex(ConfigError, message):
      LOOK_UP[kind](name)

  def test_unknown_names_are_folders_of_images(self):
    self.assertEqual(images.images('my_pictures').name, 'my_pictures')


if __name__ == '__main__':
  absltest.main()
