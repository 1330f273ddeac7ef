"""The page says of a number what its run declared, and guesses nothing from names."""

import pathlib
import re

from absl.testing import absltest, parameterized

from dlx import report
from dlx.report import declarations
from dlx.run.records.json_files import write_json
from dlx.run.records.metrics_file import MetricsFile
from tests.dlx.report.report_test import EVIL, Html

METRICS = {
  'loss': {
    'title': 'Cross-entropy',
    'better': 'lower',
    'meaning': 'Mean over the examples.',
    'unit': 'nats',
    'group': 'loss',
  },
  'probe/loss': {
    'title': 'Loss of the probe',
    'better': 'lower',
    'meaning': 'Mean over the probes.',
    'unit': 'nats',
    'group': 'loss',
  },
  'elbo': {
    'title': 'Evidence lower bound',
    'better': 'higher',
    'meaning': 'A bound in nats.',
    'unit': 'nats',
    'group': 'loss',
  },
  # Names by which nothing can be told: a share without a known word, and a distance
  # that is better when it is small.
  'solved': {
    'title': 'Solved',
    'better': 'higher',
    'meaning': 'Share that is right.',
    'unit': '%',
    'group': 'share',
  },
  'frechet': {
    'title': 'Frechet distance',
    'better': 'lower',
    'meaning': 'Distance of features.',
    'unit': '',
    'group': 'distance',
  },
  'real_accuracy': {
    'title': 'Real images told',
    'better': None,
    'meaning': 'Neither high nor low is better.',
    'unit': '%',
    'group': 'share',
  },
}
# Of each metric the best value lies in the middle, the newest at the end.
CURVES = {
  'loss': (3.0, 1.5, 2.0),
  'elbo': (-9.0, -7.0, -8.0),
  'solved': (0.25, 0.75, 0.5),
  'frechet': (30.0, 10.0, 20.0),
  'real_accuracy': (0.5, 0.75, 0.625),
}


class DeclaredTest(parameterized.TestCase):
  def render(self, config, splits=('test',)):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    write_json(workdir / 'config.json', {'experiment': 'x', **config})
    with MetricsFile(workdir) as metrics:
      for i, step in enumerate((10, 20, 30)):
        found = {name: values[i] for name, values in CURVES.items()}
        metrics.write(step, 'train', {'loss': 2.0 + i}, {})
        for split in splits:
          metrics.write(step, split, found, {})
    return report.render(workdir).read_text()

  def cards(self, config, **kwargs):
    source = self.render(config, **kwargs)
    cards = re.findall(r'<div class="card"[^>]*>(.*?)</div></div>', source)
    return [Html(f'<div><div>{c}</div></div>').text for c in cards]

  def test_the_headline_leads_with_its_best_by_declaration(self):
    headline = ['test/elbo', 'test/frechet', 'test/solved', 'test/real_accuracy']
    source = self.render({'metrics': METRICS, 'headline': headline})
    text = Html(source).text
    for part in (
      'Evidence lower bound, test −8 nats best −7 nats @ 20',
      'Frechet distance, test 20 best 10 @ 20',
      'Solved, test 50.00 % best 75.00 % @ 20',
      'Real images told, test 62.50 %',
    ):
      self.assertIn(part, text)
    self.assertNotIn('62.50 % best', text)
    titles = [METRICS[name.split('/')[1]]['title'] for name in headline]
    places = [text.index(f'{title}, test') for title in titles]
    self.assertEqual(places, sorted(places))
    self.assertNotIn('Cross-entropy, test', text)  # The headline alone, and training.
    self.assertIn('Cross-entropy, train', text)

  def test_without_declarations_nothing_is_called_best(self):
    text = Html(self.render({})).text
    self.assertNotIn('best', text)
    self.assertIn('frechet, test 20', text)
    self.assertIn('solved, test 0.5 ', text)

  def test_of_values_that_are_all_the_same_none_is_the_best(self):
    lower = declarations.Declared('loss', 'lower')
    self.assertIsNone(declarations.best(lower, [(1, 58.5), (2, 58.5), (3, 58.5)]))
    self.assertEqual(declarations.best(lower, [(1, 3.0), (2, 2.0)]), (2, 2.0))

  def test_curves_have_title_meaning_and_direction(self):
    text = Html(self.render({'metrics': METRICS})).text
    self.assertIn('Mean over the examples. In nats; lower is better.', text)
    self.assertIn('A bound in nats. In nats; higher is better.', text)
    self.assertRegex(text, r'Neither high nor low is better\. In %\.')

  def test_numbers_that_mean_something_else_in_one_split_have_a_chart_each(self):
    source = self.render({'metrics': METRICS}, splits=('test', 'probe'))
    titles = re.findall(r'<figcaption><h3>([^<]+)</h3>', source)
    self.assertEqual(titles.count('Cross-entropy'), 1)
    self.assertEqual(titles.count('Loss of the probe'), 1)
    self.assertEqual(titles.count('Frechet distance'), 1)
    one = self.render({}, splits=('test', 'probe'))
    self.assertEqual(re.findall(r'<h3>([^<]+)</h3>', one).count('loss'), 1)

  def test_phases_are_marked(self):
    phases = [['teacher', 0], ['student', 20]]
    source = self.render({'metrics': METRICS, 'phases': phases})
    marks = re.findall(r'<g class="phase">.*?</g>', source)
    self.assertTrue(marks)
    self.assertTrue(all('student' in mark for mark in marks))
    self.assertNotIn('class="phase"', self.render({}))

  @parameterized.parameters(
    {'metrics': [1], 'headline': 3, 'phases': 'abc'},
    {'metrics': {'loss': 7, 'elbo': {}}, 'headline': [None, 'a/b'], 'phases': [[1]]},
    {'metrics': {'loss': {'better': 'x', 'unit': 1, 'title': None}}, 'phases': [['a']]},
    {'phases': [['a', None], ['b', 'c'], [1, 10**400], ['d', -3]]},
  )
  def test_records_that_are_damaged_are_shown_without_declarations(self, **config):
    text = Html(self.render(config)).text
    self.assertIn('Curves', text)
    self.assertNotIn('best', text)

  def test_declarations_are_escaped(self):
    evil = dict.fromkeys(('title', 'meaning', 'unit', 'group'), EVIL)
    config = {
      'metrics': {'loss': {**evil, 'better': 'lower'}},
      'headline': ['test/loss', EVIL],
      'phases': [[EVIL, 0], [EVIL, 20]],
    }
    source = self.render(config)
    self.assertNotIn('<script>alert', source)
    self.assertNotIn('<img src=x', source)
    self.assertEqual([a for a in Html(source).attributes if a[1].startswith('on')], [])


if __name__ == '__main__':
  absltest.main()
