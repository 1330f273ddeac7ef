"""Every number that an experiment reports is declared, so that a reader knows it."""

import math
import re

from absl.testing import absltest, parameterized
import jax

from dlx.errors import ConfigError
from dlx.experiment import declared
from dlx.run import experiments_by_name
from dlx.state import Metric, ratios
from dlx.tasks.language_modelling import of_vocabulary
from dlx.train import curves
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

NAMES = experiments_by_name.names()

# Without curves of training, and why: no gradient, or seven nets with their own rates.
NO_CURVES = {
  **dict.fromkeys(tiers.FITTED, 'scikit-learn fits, not the train step'),
  'knn': 'nothing is fitted',
  'optimizer_race': 'it would be of all racers',
}

NO_NOUN = re.compile(r'\b(it|its|them|those)\b', re.I)


def numbers(built):
  """Names of the numbers that each split reports."""
  state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  of_number = ((), state.stop.shape)
  found = {}
  for shapes in built.train_data.shapes:
    _, sums = jax.eval_shape(built.train_step, state, shapes)
    found.setdefault('train', {}).update(jax.eval_shape(ratios, sums))
  for split, evaluation in built.evals.items():
    for shapes in evaluation.data.shapes:
      sums = jax.eval_shape(evaluation.step, state, shapes)
      found.setdefault(split, {}).update(jax.eval_shape(evaluation.summarize, sums))
  return {
    split: [k for k, x in tree.items() if getattr(x, 'shape', None) in of_number]
    for split, tree in found.items()
  }


class MetricsTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_every_number_is_declared_and_every_headline_exists(self, name):
    fitted = name not in NO_CURVES
    built = load(name).build(small(name, curves=fitted))
    reported = numbers(built)
    seen = curves.declared(reported['train'])
    # Of every player, or of the one net; each of its three numbers.
    self.assertEqual(len(seen) % 3, 0)
    self.assertEqual(len(seen) > 0, fitted)
    self.assertContainsSubset(seen, reported['train'])
    for split, names in reported.items():
      for metric in names:
        known = {metric, f'{split}/{metric}'} & {*built.metrics, *seen}
        self.assertTrue(known, f'{split}/{metric} is not declared')
    full = {f'{split}/{metric}' for split, ms in reported.items() for metric in ms}
    self.assertTrue(built.headline, f'{name} names no headline')
    self.assertLessEqual(set(built.headline), full)
    self.assertNotIn('train', {x.partition('/')[0] for x in built.headline})
    for key in built.metrics:
      split, _, metric = key.rpartition('/')
      if split:
        self.assertIn(metric, reported[split], f'{key} is declared and not reported')

  @parameterized.parameters(*NAMES)
  def test_declarations_stand_alone(self, name):
    built = load(name).build(small(name))
    for key, metric in built.metrics.items():
      with self.subTest(key):
        self.assertIsInstance(metric, Metric)
        self.assertIn(metric.better, ('higher', 'lower', None))
        self.assertTrue(metric.title)
        self.assertEndsWith(metric.meaning, '.')
        self.assertNotIn('\n', metric.meaning)
        self.assertIsNone(NO_NOUN.search(metric.meaning), metric.meaning)

  @parameterized.parameters(*NAMES)
  def test_phases_follow_each_other(self, name):
    config = load(name).Config()
    built = load(name).build(config)
    starts = [start for _, start in built.phases]
    self.assertEqual(starts, sorted(set(starts)))
    if starts:
      self.assertEqual(starts[0], 0)
      self.assertLess(starts[-1], config.num_steps)
    self.assertEqual(declared(built)['phases'], [list(p) for p in built.phases])

  @parameterized.parameters(
    ('sst2', {'loss': math.log(2), 'accuracy': 0.5}),
    ('sst2_tbptt', {'loss': math.log(2), 'accuracy_gru': 0.5}),
    ('gcn', {'loss': math.log(2), 'accuracy': 0.5}),  # The karate club has two.
    ('transfer', {'test/loss': math.log(5), 'test/accuracy': 0.2, 'loss': None}),
    ('distill', {'test/loss': math.log(10), 'test/accuracy': 0.1, 'train/loss': None}),
    ('ensemble', {'member_loss': math.log(10), 'member_accuracy': 0.1}),
    ('knn', {'loss': 0.9, 'accuracy': 0.1}),
    ('moco', {'train/loss': math.log(33), 'top1': 1 / 33}),  # Of 32 keys and its own.
    # Of the answer 1, the mean; within 0.04 of it lie 2 * 0.04 - 0.04**2.
    ('adding', {'loss': 1 / 6, 'solved': 0.0784}),
    ('house_prices', {'rmse': 78.298771, 'mse': 6130.69765, 'r2': 0, 'mae': None}),
  )
  def test_chance_is_declared_where_it_is_known(self, name, wanted):
    found = load(name).build(small(name)).metrics
    for key, chance in wanted.items():
      if chance is None:
        self.assertIsNone(found[key].chance, key)
      else:
        self.assertAlmostEqual(found[key].chance, chance, delta=1e-6 * (1 + chance))

  def test_chance_of_a_language_is_of_so_many_characters(self):
    found = of_vocabulary(32)
    chance = {name: metric.chance for name, metric in found.items()}
    wanted = {'loss': math.log(32), 'perplexity': 32, 'accuracy': 1 / 32}
    self.assertEqual(chance, {**wanted, 'bits_per_character': 5})
    built = load('char_gpt').build(small('char_gpt')).metrics
    self.assertEqual(built['perplexity'].chance, round(built['perplexity'].chance))
    self.assertAlmostEqual(
      built['loss'].chance, math.log(built['perplexity'].chance), delta=1e-9
    )

  def test_curves_that_would_say_nothing_are_refused(self):
    for name, why in NO_CURVES.items():
      with self.assertRaisesRegex(ConfigError, f'curves=True .*False: {why}'):
        small(name, curves=True)

  def test_float16_reports_the_steps_that_were_skipped(self):
    config = small('cnn', compute_dtype='float16')
    built = load('cnn').build(config)
    self.assertIn('skipped', numbers(built)['train'])
    self.assertIn('skipped', built.metrics)


if __name__ == '__main__':
  absltest.main()
