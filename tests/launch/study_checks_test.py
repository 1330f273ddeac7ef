"""launch.check of a study, and launch.train of one: each fault is one line."""

import json
import pathlib
import sys

import pytest

from launch import check, train

GOOD = '''
"""A study.

  python -m launch.train --exp=mine.py
"""

import dataclasses

from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  num_steps: int = 3  # Optimiser steps of each run.


SMALL = Config(seeds=2)


def study(config):
  fields = {'num_steps': config.num_steps, 'batch_size': 16}
  return Study(
    runs=over_seeds(config, {'a': Run('softmax_regression', fields)}),
    metrics=('test/loss',),
    claims={'It is true.': lambda r: Verdict(True, f'{r.mean("test/loss", "a"):.2f}.')},
  )
'''


@pytest.fixture
def written(tmp_path, monkeypatch):
  """text -> path of a study of the user's; its module is forgotten afterwards."""
  monkeypatch.setattr(sys, 'path', list(sys.path))
  names = []

  def write(text) -> pathlib.Path:
    path = tmp_path / f'study_{tmp_path.name}.py'
    path.write_text(text.lstrip())
    names.append(path.stem)
    return path

  yield write
  for name in names:
    sys.modules.pop(name, None)


def test_a_study_of_one_s_own(written, tmp_path, capsys):
  path, workdir = written(GOOD), tmp_path / 'w'
  assert check.main(['check', f'--exp={path}']) == 0
  said = capsys.readouterr().out
  assert '3 runs in 3 programs, 1 claim' in said and said.count('ok  ') == 3
  args = ['train', f'--exp={path}', f'--workdir={workdir}', '--config.seeds=1']
  assert train.main(args) == 0
  said = capsys.readouterr().out
  assert 'held  It is true.' in said and said.rstrip().endswith('w/report.html')
  record = json.loads((workdir / 'study.json').read_text())
  assert record['study'] == str(path) and record['argv'] == args


@pytest.mark.parametrize(
  ('old', 'new', 'status', 'told'),
  [
    ("'test/loss',)", "'test/los',)", 2, 'metrics: test/los is not allowed'),
    ("mean(\"test/loss\", \"a\")", 'mean("test/loss", "b")', 2, "'b' is no group"),
    ('SMALL = Config(seeds=2)', '', 0, 'trained, judged'),
    (
      "    claims={'It is true.': lambda r: Verdict(True, f'{r.mean(\"test/loss\", "
      "\"a\"):.2f}.')},\n",
      '',
      1,
      'it claims nothing',
    ),
    ("{'a': Run", "{f'a{config.seeds}': Run", 2, "'a' is no group"),
    (
      "runs=over_seeds(config, {'a': Run('softmax_regression', fields)})",
      "runs={'a': Run('softmax_regression', {**fields, 'seed': config.seeds})}",
      1,
      'with one seed more a is another run',
    ),
  ],
)  # fmt: skip
def test_what_a_check_finds(old, new, status, told, written, capsys):
  assert old in GOOD
  path = written(GOOD.replace(old, new))
  assert check.main(['check', f'--exp={path}']) == status
  found = capsys.readouterr()
  assert told in found.out + found.err
  assert found.err.count('error:') == (status == 2)


@pytest.mark.parametrize(
  ('flag', 'told'),
  [
    ('--config.seeds=0', '--config.seeds=0 is not allowed: must be at least 1'),
    ('--config.seed=1', 'Did you mean: config.seeds'),
    ('--stop_at=3', '--stop_at is not allowed with study_'),
    ('--extend', '--extend is not allowed with study'),
    ('--init_from=runs/a', '--init_from is not allowed with study'),
    ('--mesh=data=7', '--mesh=data=7 has 7 devices, but this run has 1'),
  ],
)
def test_bad_flags_of_a_study(flag, told, written, tmp_path, capsys):
  path = written(GOOD)
  args = ['train', f'--exp={path}', f'--workdir={tmp_path}/w', flag]
  assert train.main(args) == 2
  found = capsys.readouterr()
  assert told in found.err and found.err.count('\n') == 1
  assert not (tmp_path / 'w').exists()


def test_a_config_of_another_base(written, capsys):
  text = GOOD.replace('Config(StudyConfig)', 'Config').replace('(seeds=2)', '()')
  assert train.main(['train', f'--exp={written(text)}']) == 2
  assert 'class Config(dlx.config.StudyConfig)' in capsys.readouterr().err
