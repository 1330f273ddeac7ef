"""deep_vs_classical: equal examples and steps, the table, claims on made-up numbers."""

from absl.testing import absltest, parameterized
import pytest

from dlx import runs
from dlx.config_json import config_to_json
from dlx.data.sources import held_out, of_arrays
from dlx.errors import ConfigError
from dlx.study import trials
from dlx.study.results import Finished, Results
from experiments.foundations import deep_vs_classical as dvc

COSTS = {'train_seconds': 0.25, 'parameters': 650.0}


def results(config, accuracy):
  """Made-up results: `accuracy` by learner, or by (learner, examples)."""
  found = {}
  for trial in trials.expand(dvc.study(config)):
    name, _, n = trial.run.group.rpartition('-')
    value = accuracy.get((name, int(n)), accuracy.get(name, 0.5))
    metrics = {dvc.ACCURACY: value, 'test/fitted': 77.0}
    config_of = config_to_json(trial.config)
    found[trial.name] = Finished(trial.run, config_of, metrics, 2.0, costs=COSTS)
  return Results(found)


class DeepVsClassicalTest(parameterized.TestCase):
  def test_a_size_leaves_so_many_examples(self):
    import numpy as np

    for size in (1437, 60000):
      for n in (10, 99, 100, 101, 400, 1000, 1436, size - 1):
        share = 1 - n / size
        self.assertEqual(size - max(1, round(share * size)), n)
    label = np.arange(200, dtype=np.int32) % 10
    left, _ = held_out(of_arrays({'label': label}), 1 - 30 / 200, by_class='label')
    counts = np.bincount(left.read(None).data['label'])
    self.assertEqual(counts.tolist(), [3] * 10)

  def test_both_perceptrons_take_the_same_steps(self):
    study = dvc.study(dvc.Config(examples=(100, 1437), num_steps=600))
    for n, per_pass in ((100, 1), (1437, 12)):
      own, other = (study.runs[f'{x}-{n}-0'].fields for x in ('mlp', 'scikit_mlp'))
      self.assertEqual(own['num_steps'], other['passes'] * per_pass)
      self.assertGreaterEqual(own['num_steps'], 600)
      for name in ('batch_size', 'features', 'lr', 'validation', 'dataset'):
        self.assertEqual(own[name], other[name])
    self.assertEqual(study.runs['knn-100-0'].fields['bank'], 100)
    self.assertEqual(study.runs['cnn-1437-0'].fields['validation'], 0)

  def test_what_draws_nothing_is_run_once(self):
    study = dvc.study(dvc.Config(examples=(100, 400), seeds=3))
    seeds = {}
    for run in study.runs.values():
      seeds.setdefault(run.group, []).append(run.fields['seed'])
    for n in (100, 400):
      for name in (*dvc.CLASSICAL, *dvc.NETS):
        once = name in ('logistic', 'knn', 'boosting')
        self.assertEqual(seeds[f'{name}-{n}'], [0] if once else [0, 1, 2])

  def test_claims_and_table_of_made_up_numbers(self):
    config = dvc.Config(examples=(100, 1437), seeds=3)
    study = dvc.study(config)
    found = results(
      config, {('knn', 100): 0.91, ('cnn', 100): 0.9, ('cnn', 1437): 0.99, 'mlp': 0.504}
    )
    verdicts = {claim: check(found) for claim, check in study.claims.items()}
    self.assertTrue(all(v.holds for v in verdicts.values()))
    self.assertIn('91.00 % of knn, 90.00 % of cnn', str(list(verdicts.values())[0]))
    far = results(config, {('mlp', 1437): 0.506, ('forest', 1437): 0.8})
    holds = [check(far).holds for check in study.claims.values()]
    self.assertEqual(holds, [False, False, False])
    rows = {(row['learner'], row['examples']): row for row in study.rows(found)}
    self.assertLen(rows, 16)
    cell = lambda name, n=1437: rows[name, n]['numbers of the model']
    self.assertEqual(cell('softmax_regression'), '650')
    self.assertEqual(cell('forest'), '77')
    self.assertEqual(cell('knn', 100), '6400')  # A hundred images of 64 pixels.
    self.assertEqual(rows['cnn', 1437]['seconds of training'], '0.25')
    self.assertEqual(rows['cnn', 1437]['accuracy, %'], '99')

  @parameterized.parameters(
    (dict(examples=(400, 100)), 'examples=.* must be rising'),
    (dict(examples=(5,)), 'examples=.* at least 10'),
    (dict(learners=('mlp', 'cnn')), 'learners=.*; scikit_mlp, mlp, cnn among them'),
    (dict(learners=('svm', *dvc.NEEDED)), 'learners=.* of logistic, knn'),
    (dict(neighbours=200), 'neighbours=200 .* in the examples'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      dvc.Config(**fields)

  def test_more_examples_than_there_are_and_unknown_sizes_are_refused(self):
    with self.assertRaisesRegex(ConfigError, 'examples=.* at most 1437'):
      dvc.study(dvc.Config(examples=(100, 1438)))
    with self.assertRaisesRegex(ConfigError, 'fashion_mnist .* declares how many'):
      dvc.study(dvc.Config(dataset='fashion_mnist'))

  @pytest.mark.slow  # Six runs of 600 steps.
  @pytest.mark.usefixtures('optimised')
  def test_mlp_is_as_good_as_that_of_scikit_learn(self):
    config = dvc.Config(examples=(1437,), seeds=3, learners=dvc.NEEDED)
    study = dvc.study(config)
    both = {k: r for k, r in study.runs.items() if r.group.split('-')[0] in
            ('mlp', 'scikit_mlp')}  # fmt: skip
    (alike,) = (c for k, c in study.claims.items() if 'of scikit-learn' in k)
    only = study._replace(runs=both, rows=None, figures={}, claims={'Alike.': alike})
    workdir = self.create_tempdir().full_path
    outcome = runs.study(only, config, workdir, name='deep_vs_classical')
    self.assertTrue(outcome.verdicts['Alike.'].holds, outcome.verdicts)
    print(outcome.verdicts['Alike.'].numbers)


if __name__ == '__main__':
  absltest.main()
