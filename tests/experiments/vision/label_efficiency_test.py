"""label_efficiency: names of runs, claims and table on numbers that are known."""

import numpy as np
import pytest

from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.study.results import Finished, Results
from dlx.study.trials import expand
from experiments.vision import label_efficiency as study

ACCURACY = 'test/accuracy'


def results(config, accuracy):
  """Of each run `accuracy(strategy, share, seed)`."""
  found = {}
  for trial in expand(study.study(config)):
    fields = config_to_json(trial.config)
    value = accuracy(fields['strategy'], fields['share'], fields['seed'])
    metrics = {ACCURACY: value, 'test/loss': 1.0}
    found[trial.name] = Finished(trial.run, fields, metrics, 1.0)
  return Results(found)


def test_runs_by_name():
  config = study.Config(sources=('half', '2', 'fashion_mnist'), shares=(0.01, 1.0))
  runs = study.study(config).runs
  assert len(runs) == 3 * (2 * 2 + 3 * 3 * 2)  # Targets of scratch: a half, all.
  assert runs['features-2-1-0'].fields['source']['classes'] == 2
  assert runs['last-fashion_mnist-100-2'].fields['source']['dataset'] == 'fashion_mnist'
  fields = runs['full-half-1-2'].fields
  assert (fields['seed'], fields['subset_seed'], fields['share']) == (2, 2, 0.01)
  scratch = runs['scratch-half-1-2'].fields
  assert fields['num_steps'] - scratch['num_steps'] == config.source_steps


def test_scratch_is_of_the_same_target():
  config = study.Config(sources=('2', 'fashion_mnist'), shares=(0.1,), seeds=2)
  sources = {
    name: run.fields['source'].get('dataset')
    for name, run in study.study(config).runs.items()
    if name.startswith('scratch') and name.endswith('-0')
  }
  assert sources == {'scratch-half-10-0': None, 'scratch-fashion_mnist-10-0':
                     'fashion_mnist'}  # fmt: skip


def test_a_source_of_another_run_takes_no_steps():
  config = study.Config(source_workdir='w', shares=(0.1,))
  fields = study.study(config).runs['full-half-10-0'].fields
  assert fields['num_steps'] == config.target_steps
  assert fields['source']['workdir'] == 'w'


def test_intervals_that_are_apart():
  """t of two degrees of freedom is 4.303: +- 2.484 times the spread of 3 seeds."""
  config = study.Config(shares=(0.05, 1.0))
  # Spreads of 1 point: each interval reaches 2.484 points.
  for gain, holds in ((0.0498, True), (0.0495, False), (-0.2, False)):
    values = lambda strategy, share, seed, gain=gain: (
      0.7 + 0.01 * seed + gain * (strategy == 'full') * (share == 0.05)
    )
    claims = study.study(config).claims
    first, second = (claim(results(config, values)) for claim in claims.values())
    assert first.holds == holds
    # What a seed does to both cancels out: the gain itself has no spread.
    assert second.holds == (gain > 0)
  assert '95 % intervals' in first.numbers


def test_no_claim_beyond_few_labels():
  claims = study.study(study.Config(few=0.05)).claims
  assert [x.split(' of ')[0] for x in claims][:-1] == ['With 1 %', 'With 5 %']


def test_table():
  config = study.Config(shares=(0.1,), strategies=('scratch', 'last'))
  gain = {'scratch': 0.0, 'last': 0.1}
  found = results(config, lambda strategy, _, seed: 0.5 + gain[strategy] + seed / 100)
  rows = study.study(config).rows(found)
  assert [row['strategy'] for row in rows] == ['scratch', 'last']
  assert rows[0]['95 % interval'] == '0.4852 to 0.5348'
  assert 'above scratch' not in rows[0]
  # 0.1 +- 2.776 sqrt(2 / 3) points.
  assert rows[1]['above scratch'] == '0.1000 (0.0773 to 0.1227)'
  assert rows[1]['labels (%)'] == '10'


@pytest.mark.parametrize(
  'fields',
  [
    {'shares': (0.1, 0.01)},
    {'shares': (0.0,)},
    {'strategies': ('full',)},
    {'strategies': ('scratch', 'all')},
    {'sources': ()},
    {'sources': ('half', '2'), 'source_workdir': 'w'},
  ],
)
def test_what_cannot_be(fields):
  with pytest.raises(ConfigError, match=f'config.{next(iter(fields))}=.*not allowed'):
    study.Config(**fields)


def test_figure():
  config = study.Config(strategies=('scratch', 'full'))
  values = lambda strategy, share, seed: 0.5 + 0.1 * share + seed / 100
  figure = study.study(config).figures['accuracy_half'](results(config, values))
  (ax,) = figure.axes
  assert ax.get_xscale() == 'log'
  np.testing.assert_allclose(ax.lines[0].get_xdata(), [1, 5, 10, 100])
