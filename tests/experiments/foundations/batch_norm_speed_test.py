"""Steps to the level of the net without batch norm, on results made by hand."""

import pytest

from dlx.study.results import Finished, Results
from experiments.foundations import batch_norm_speed

CONFIG = batch_norm_speed.Config(seeds=2, rates=(0.1, 1.0), num_steps=40)
STEPS = (10, 20, 30, 40)
# Accuracies at STEPS by net, norm and rate; the second seed is 0.01 above.
CURVES = {
  # Ends best at 1; both seeds have reached 0.8.
  'sigmoid-without@0.1': (0.5, 0.6, 0.7, 0.78),
  'sigmoid-without@1': (0.2, 0.7, 0.7, 0.8),
  'sigmoid-with@0.1': (0.1, 0.8, 0.9, 0.9),
  'sigmoid-with@1': (0.9, 0.9, 0.9, 0.9),
  'ReLU-without@0.1': (0.2, 0.8, 0.7, 0.8),
  'ReLU-without@1': (),  # Diverged.
  'ReLU-with@0.1': (0.3, 0.81, 0.9, 0.9),
  'ReLU-with@1': (0.3, 0.5, 0.6, 0.7),
}


def made():
  study = batch_norm_speed.study(CONFIG)
  runs = {}
  for name, run in study.runs.items():
    values = [x + 0.01 * run.fields['seed'] for x in CURVES[run.group]]
    curve = list(zip(STEPS, values, strict=False))
    lost = not curve
    metrics = dict.fromkeys(study.metrics, 0.0 if lost else curve[-1][1])
    curves = {} if lost else dict.fromkeys(study.metrics, curve)
    runs[name] = Finished(run, run.fields, metrics, 1.0, lost, curves)
  return study, Results(runs)


def test_steps_are_compared_at_the_fastest_rates():
  study, results = made()
  first, second = (check(results) for check in study.claims.values())
  # 40 and 40 steps, 0.8 is the least of both seeds' best; with it 10 and 10.
  assert first.holds
  assert first.numbers == (
    'test/accuracy of 0.8: sigmoid-without@1: 40 steps (40, 40); sigmoid-with@1: 10 '
    'steps (10, 10); 4 times fewer.'
  )
  assert not second.holds
  assert second.numbers == (
    'test/accuracy of 0.8: ReLU-without@0.1: 20 steps (20, 20); ReLU-with@0.1: 20 '
    'steps (20, 20); 1 times fewer.'
  )


def test_the_table_says_what_is_never_reached():
  study, results = made()
  assert study.rows is not None
  rows = {(r['net'], r['batch norm'], r['rate']): r for r in study.rows(results)}
  steps = lambda *key: rows[key]['steps to the level']
  assert steps('sigmoid', 'without', '0.1') == 'inf'
  assert steps('sigmoid', 'with', '0.1') == '20'
  assert steps('ReLU', 'without', '1') == '–'


def test_nothing_is_known_where_all_of_a_net_diverged():
  study, results = made()
  lost = {
    name: one._replace(diverged=True, metrics={}, curves={})
    if one.run.group.startswith('ReLU')
    else one
    for name, one in results.runs.items()
  }
  verdicts = [check(Results(lost)) for check in study.claims.values()]
  assert [v.holds for v in verdicts] == [True, False]


@pytest.mark.parametrize('fields', [{'every': 7}, {'rates': (1.0, 0.1)}])
def test_refusals(fields):
  with pytest.raises(ValueError, match='is not allowed: must be'):
    batch_norm_speed.Config(**fields)
