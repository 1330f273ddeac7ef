"""Every study: its least form is trained, judged, shown, and trained no second time."""

import ast
import collections
import inspect
import json

import pytest

from dlx import runs
from dlx.config_json import config_from_json, config_to_json
from dlx.errors import ConfigError
from dlx.run import experiments_by_name, loop
from dlx.study import trials
from tests import turns

STUDIES = experiments_by_name.studies()
ALWAYS = 'learning_rate_sweep'  # The least of the others run in turn: seconds each.
AREA = {
  name: area for area, all in experiments_by_name.by_area().items() for name in all
}


def in_turn(number: int, name: str):
  file = f'experiments/{AREA[name]}/{name}.py'
  marks = () if name == ALWAYS else turns.seldom(number, 4, (file,))
  return pytest.param(name, marks=marks)


def found(name) -> experiments_by_name.FoundStudy:
  study = experiments_by_name.load_any(name)
  assert isinstance(study, experiments_by_name.FoundStudy)
  return study


def test_there_are_studies():
  assert STUDIES and not set(STUDIES) & set(experiments_by_name.names())


@pytest.mark.parametrize('name', [in_turn(*pair) for pair in enumerate(STUDIES)])
def test_the_least_study(name, tmp_path, monkeypatch):
  study = found(name)
  config = study.module.SMALL
  declared = study.study(config)
  options = {'name': name, 'module': study.module.__name__, 'terminal': False}
  outcome = runs.study(declared, config, tmp_path / 'w', **options)
  assert outcome.status == 'finished' and outcome.done == len(declared.runs)
  assert list(outcome.verdicts) == list(declared.claims)
  for verdict in outcome.verdicts.values():
    assert verdict.numbers.endswith('.')
    assert any(c.isdigit() for c in verdict.numbers)
  assert len(outcome.rows) == len(outcome.results.groups)
  for figure in declared.figures:
    assert (tmp_path / 'w' / 'figures' / f'{figure}.png').stat().st_size > 5000
  page = (tmp_path / 'w' / 'report.html').read_text()
  record = json.loads((tmp_path / 'w' / 'study.json').read_text())
  assert page.index(next(iter(declared.claims))) < page.index('<h2>Figures')
  assert config_from_json(study.config_class, record['config']) == config

  def trained(*args):
    raise AssertionError('a run was trained again')

  monkeypatch.setattr(loop, '_turn', trained)
  again = runs.study(declared, config, tmp_path / 'w', **options)
  assert again.rows == outcome.rows


@pytest.mark.parametrize('name', STUDIES)
def test_the_study_as_it_is(name):
  study = found(name)
  config = study.config_class()
  declared = study.study(config)
  # Each is a question with an answer that can be wrong, over several seeds.
  assert declared.claims and declared.figures and config.seeds >= 3
  assert all(claim.endswith('.') for claim in declared.claims)
  names = [trial.name for trial in trials.expand(declared)]
  assert len(names) % config.seeds == 0
  doc = inspect.getdoc(study.module) or ''
  assert f'--exp={name}' in doc and 'Expected' in doc and 'Measured: ' in doc
  assert set(config_to_json(config)) > {'seeds', 'first_seed'}


# Groups of runs of which every seed gives the same, by the beginnings of their names.
DRAWLESS = {'deep_vs_classical': ('logistic-', 'knn-', 'boosting-')}


@pytest.mark.parametrize('name', STUDIES)
def test_more_seeds_are_more_runs(name):
  study = found(name)
  few, many = (study.config_class(seeds=n) for n in (2, 3))
  few, many = study.study(few).runs, study.study(many).runs
  assert few.items() <= many.items()
  counts = [
    collections.Counter(run.group for run in runs.values()) for runs in (few, many)
  ]
  for group in counts[1]:
    once = (group or '').startswith(DRAWLESS.get(name, ()))
    assert (counts[0][group], counts[1][group]) == ((1, 1) if once else (2, 3)), group
  with pytest.raises(ConfigError, match='--config.seeds=0 is not allowed'):
    study.config_class(seeds=0)


def test_a_study_is_told_apart_by_its_text():
  for name in STUDIES:
    tree = ast.parse(inspect.getsource(found(name).module))
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert 'study' in names and 'build' not in names
