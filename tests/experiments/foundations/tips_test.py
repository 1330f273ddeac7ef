"""tips: pairs that differ in one thing, and what they are worth, on made-up numbers."""

from absl.testing import absltest, parameterized

from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.study import trials
from dlx.study.results import Finished, Results
from experiments.foundations import tips


def results(study, accuracy):
  """Made-up results: by group what is added to 0.5 + seed / 100."""
  found = {}
  for trial in trials.expand(study):
    value = 0.5 + trial.config.seed / 100 + accuracy.get(trial.run.group, 0.0)
    metrics = {tips.ACCURACY: value, tips.LOSS: 1 - value}
    config = config_to_json(trial.config)
    found[trial.name] = Finished(trial.run, config, metrics, 1.0)
  return Results(found)


class TipsTest(parameterized.TestCase):
  def test_a_pair_differs_in_what_the_tip_says(self):
    differ = {
      'inputs': {'normalise'},
      'shuffling': {'shuffle'},
      'he': {'initialiser'},
      'batch_norm': {'batch_norm'},
      'conv_norm': {'batch_norm'},
      'skip': {'skip'},
      'schedule': {'schedule'},
      'averaging': {'ema_decay'},
      'warmup': {'schedule'},
      'clipping': {'clip_norm'},
      'augmentation': {'augment'},
      'smoothing': {'label_smoothing'},
      'dropout': {'dropout'},
      'decay': {'weight_decay'},
      'stopping': {'early_stop_metric', 'eval_every_steps'},
    }
    found = tips.tips(tips.Config())
    self.assertEqual(tuple(found), tips.TIPS)
    for name, (without, tried) in found.items():
      if name == 'simple':  # Another experiment.
        continue
      names = without.fields.keys() | tried.fields.keys()
      changed = {
        k for k in names if without.fields.get(k, 'off') != tried.fields.get(k, 'off')
      }
      self.assertEqual(changed, differ[name], name)
      self.assertEqual(without.exp, tried.exp)

  def test_equal_settings_are_trained_once(self):
    study = tips.study(tips.Config(only=('dropout', 'decay', 'averaging'), seeds=2))
    groups = {run.group for run in study.runs.values()}
    wanted = {'dropout', 'decay', 'averaging', 'dropout-without', 'averaging-without'}
    self.assertEqual(groups, wanted)
    # The CNN of few examples with its norm is one of two settings for three tips.
    study = tips.study(tips.Config(only=('conv_norm', 'augmentation', 'smoothing')))
    groups = {run.group for run in study.runs.values()}
    wanted = {'conv_norm', 'conv_norm-without', 'augmentation', 'smoothing'}
    self.assertEqual(groups, wanted)
    configs = [trial.config for trial in trials.expand(tips.study(tips.Config()))]
    self.assertLen(set(configs), len(configs))

  def test_worth_of_tips_by_hand(self):
    study = tips.study(tips.Config(only=('dropout', 'decay', 'skip'), seeds=3))
    found = results(study, {'dropout': 0.03, 'skip': -0.01})
    rows = {row['setting']: row for row in study.rows(found)}
    # Differences of pairs are equal: the interval is a point, whatever the seeds do.
    told = {name: (row.get('worth, points'), row.get('the tip'))
            for name, row in rows.items()}  # fmt: skip
    self.assertEqual(told['dropout'], ('+3.00', 'pays'))
    self.assertEqual(told['decay'], ('+0.00', 'not told'))
    self.assertEqual(told['skip'], ('-1.00', 'hurts'))
    self.assertEqual(told['dropout-without'], (None, None))
    self.assertEqual(rows['decay']['without'], 'dropout-without')
    holds = {claim: check(found).holds for claim, check in study.claims.items()}
    self.assertEqual([*holds.values()].count(True), 1)
    self.assertTrue(holds['The tip dropout raises the test accuracy.'])

  @parameterized.parameters(
    (dict(only=('skip', 'luck')), 'only=.* each once, of simple, inputs'),
    (dict(only=('skip', 'skip')), 'only='),
    (dict(only=()), 'only='),
    (dict(few=1.0), 'few=1.0'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      tips.Config(**fields)


if __name__ == '__main__':
  absltest.main()
