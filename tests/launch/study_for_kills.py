"""A study of runs that save often, some of them together: it is killed in the tests."""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, over_seeds

LOSS = 'test/loss'
FIELDS = {
  'num_steps': 60,
  'batch_size': 16,
  'features': (16,),
  'save_every_steps': 5,
  'log_every_steps': 5,
  'steps_per_dispatch': 5,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 2  # Runs of each setting.


def study(config):
  settings = {
    'low': Run('mlp', {**FIELDS, 'lr': 1e-3}),
    'high': Run('mlp', {**FIELDS, 'lr': 1e-2}),
    'wide': Run('mlp', {**FIELDS, 'features': (24,)}),
    'far': Run('mlp', {**FIELDS, 'lr': 1e38}),
    'linear': Run('softmax_regression', {'num_steps': 20, 'batch_size': 16}),
  }
  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, 'test/accuracy'),
    claims={'A higher rate learns more.': lambda r: r.lower(LOSS, 'high', than='low')},
    figures={
      'losses': lambda r: studies.over_groups(
        {g: r.values(LOSS, g) for g in r.groups}, xlabel='loss', title='losses'
      )
    },
  )
