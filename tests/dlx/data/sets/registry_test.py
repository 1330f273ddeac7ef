"""The one registry of names: complete, of one kind each, one message."""

import pathlib
import re
from unittest import mock

from absl.testing import absltest, parameterized

from dlx.data.sets import (
  characters,
  graphs,
  images,
  registry,
  scikit,
  sentences,
  series,
  tables,
  translation,
)
from dlx.errors import ConfigError, DataError

LOOK_UP = {
  'images': images.images,
  'tables': tables.tabular,
  'graphs': graphs.graph,
  'sentences': sentences.sentences,
  'characters': characters.characters,
  'translation': translation.translation,
  'series': series.series,
}

# What reads each embedded set whose content is the same everywhere.
READ = {
  'digits': lambda: scikit.digits('test'),
  'photographs': scikit.photographs,
  'wine': lambda: tables.tabular('wine').train.read(None),
  'breast_cancer': lambda: tables.tabular('breast_cancer').train.read(None),
  'diabetes': lambda: tables.tabular('diabetes').test.read(None),
  'karate_club': lambda: graphs.graph('karate_club').source.read(None),
  'grammar': lambda: sentences.sentences('grammar').train.read(None),
  'reverse': lambda: translation.translation('reverse').test.read(None),
  'sort': lambda: translation.translation('sort').test.read(None),
  'phrases': lambda: translation.translation('phrases').test.read(None),
  **{
    name: lambda name=name: (
      series.windows(series.series(name), 12, 6).sources['test'].read(None)
    )
    for name in ('sea_temperature', 'sunspots')
  },
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
    (
      'graphs',
      'corra',
      'Did you mean cora\\? For a graph .* citeseer, pubmed, or a set of',
    ),
    ('tables', 'own', 'california_housing, or a set of your own in --data_dir, from'),
    ('characters', 'imdb', "dataset='imdb' is not known. For a text"),
  )
  def test_unknown_names_get_the_nearest_and_the_list(self, kind, name, message):
    with self.assertRaisesRegex(ConfigError, message):
      LOOK_UP[kind](name)

  @parameterized.parameters(*READ)
  def test_an_embedded_set_of_other_content_is_refused(self, name):
    entry = registry.SETS[name]
    READ[name]()
    other = {**registry.SETS, name: entry._replace(sha256='0' * 64)}
    with mock.patch.object(registry, 'SETS', other):
      with self.assertRaisesRegex(DataError, f'^{name}: sha256 {entry.sha256} is not'):
        READ[name]()

  def test_every_embedded_set_is_verified(self):
    embedded = {name for name, entry in registry.SETS.items() if entry.embedded}
    self.assertEqual(embedded - {'pydoc'}, set(READ))  # Python's differs by version.
    origin = characters.characters('pydoc').train.read(None).origin
    self.assertLen(origin['sha256'], 64)

  def test_the_readme_states_the_licence_of_every_set(self):
    text = (pathlib.Path(__file__).parents[4] / 'README.md').read_text('utf-8')
    rows = re.findall(r'^\| (`.*) \| (.*) \|$', text.split('their licences')[1], re.M)
    found = {
      (name, bool(embedded)): licence
      for names, licence in rows
      for name, embedded in re.findall(r'`(\w+)`( \(embedded\))?', names)
    }
    stated = {(k, e.embedded): e.licence for k, e in registry.SETS.items()}
    self.assertEqual(found, stated)

  def test_unknown_names_are_folders_of_images(self):
    self.assertEqual(images.images('my_pictures').name, 'my_pictures')


if __name__ == '__main__':
  absltest.main()
