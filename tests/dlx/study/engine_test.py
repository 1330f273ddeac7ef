"""A study from its runs to its claims: trained once, resumed, grown, refused."""

import json
import pathlib
import sys

import numpy as np
import pytest

import dlx
from dlx import runs
from dlx.config import StudyConfig
from dlx.errors import ConfigError
from dlx.figures import studies
from dlx.report import render
from dlx.run import loop
from dlx.study import engine, trials
from dlx.study.declaration import Run, Study, Verdict, over_seeds
from experiments.foundations import mlp

LOSS = 'test/loss'
FIELDS = {
  'num_steps': 4,
  'batch_size': 16,
  'features': (8,),
  'batch_norm': False,
  'input_dropout': 0.0,
  'log_every_steps': 2,
}
SETTINGS = {
  'slow': Run('mlp', {**FIELDS, 'lr': 1e-4}),
  'fast': Run('mlp', {**FIELDS, 'lr': 1e-2}),
  'lost': Run('mlp', {**FIELDS, 'lr': 1e38}),
}
ALONE = {
  'linear': Run('softmax_regression', {'num_steps': 4, 'batch_size': 16}),
  'linear_lost': Run('softmax_regression', {'num_steps': 9, 'lr': 1e38}),
}


def made(config, **changes):
  """Six runs of three rates that are trained together, and two alone."""
  drawn = lambda r: studies.over_groups(
    {g: r.values(LOSS, g) for g in r.groups}, xlabel='loss', title='losses'
  )
  study = Study(
    runs={**over_seeds(config, SETTINGS), **ALONE},
    metrics=(LOSS, 'test/accuracy'),
    claims={
      'A higher rate learns faster.': lambda r: r.lower(LOSS, 'fast', 'slow', errors=1),
      'All is lost.': lambda r: Verdict(r.num_diverged('fast') > 0, 'Nothing is.'),
    },
    figures={'losses': drawn},
  )
  return study._replace(**changes)


def run(workdir, config=None, **changes):
  config = config or StudyConfig(seeds=2)
  study = made(config, **changes)
  return engine.run(
    study, config, workdir, name='mine', module=__name__, terminal=False
  )


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('study') / 'w'
  return workdir, run(workdir)


def kept(workdir):
  """What does not depend on the clock."""
  found = json.loads((workdir / 'study.json').read_text())
  for one in found['runs'].values():
    del one['seconds']
  figure = (workdir / 'figures' / 'losses.png').read_bytes()
  return found, (workdir / 'table.md').read_text(), figure


def test_runs_that_differ_in_numbers_are_one_program(done):
  workdir, outcome = done
  assert (outcome.status, outcome.done, outcome.total) == ('finished', 8, 8)
  groups = trials.programs(trials.expand(made(StudyConfig(seeds=2))))
  assert [len(g) for g in groups] == [6, 1, 1]
  (folder,) = (workdir / 'together').iterdir()
  names = json.loads((folder / 'members.json').read_text())['runs']
  assert names == ['slow-0', 'slow-1', 'fast-0', 'fast-1', 'lost-0', 'lost-1']
  # One run is a workdir of its own, with its checkpoints.
  assert (workdir / 'runs' / 'linear' / 'checkpoints').is_dir()


def test_each_run_has_the_records_of_its_own(done, tmp_path):
  workdir, outcome = done
  config = mlp.Config(**FIELDS, lr=1e-2, seed=1)
  loop.fit(mlp.build(config), config, tmp_path / 'alone', terminal=False)
  read = lambda folder: json.loads((folder / 'result.json').read_text())
  alone, one = read(tmp_path / 'alone'), read(workdir / 'runs' / 'fast-1')
  assert alone['metrics'].keys() == one['metrics'].keys()
  for name, value in alone['metrics'].items():
    # Float32 through four steps of Adam; shares of 360 examples.
    assert one['metrics'][name] == pytest.approx(value, rel=1e-3, abs=1 / 300), name
  there = json.loads((workdir / 'runs' / 'fast-1' / 'config.json').read_text())
  assert (
    there['config']
    == json.loads((tmp_path / 'alone' / 'config.json').read_text())['config']
  )
  steps = lambda folder: [
    (line['step'], line['split'])
    for line in map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  ]
  assert steps(workdir / 'runs' / 'fast-1') == steps(tmp_path / 'alone')
  assert render(workdir / 'runs' / 'fast-1').exists()
  assert outcome.results.runs['fast-1'].metrics[LOSS] == one['metrics'][LOSS]


def test_a_run_of_many_is_opened_and_evaluated(done, tmp_path):
  import shutil

  moved = tmp_path / 'moved'
  shutil.copytree(done[0], moved)
  workdir = moved / 'runs' / 'fast-1'
  found = dlx.open(workdir)
  wanted = done[1].results.runs['fast-1']
  assert (found.config.lr, found.config.seed, found.step) == (1e-2, 1, 4)
  built = mlp.build(found.config)
  metrics = runs.evaluate(built, found.config, workdir)
  # Another program, and so other roundings.
  assert metrics[LOSS] == pytest.approx(wanted.metrics[LOSS], rel=1e-5)
  images = np.zeros((3, 8, 8, 1), np.uint8)
  assert found.predict(image=images).shape == (3, 10)
  other = dlx.open(moved / 'runs' / 'fast-0').predict(image=images)
  assert np.abs(other - found.predict(image=images)).max() > 1e-3


@pytest.mark.parametrize(
  'of',
  [
    {'workdir': '../../../x'},
    {'workdir': '../../together/..'},
    {'member': 6},
    {'member': 'a'},
    3,
  ],
)
def test_a_record_leads_nowhere_else(of, done, tmp_path):
  record = json.loads((done[0] / 'runs' / 'fast-1' / 'config.json').read_text())
  record['together'] = {**record['together'], **of} if isinstance(of, dict) else of
  (tmp_path / 'config.json').write_text(json.dumps(record))
  with pytest.raises(ConfigError, match='must name a member of a program of the same'):
    dlx.open(tmp_path).predict(image=np.zeros((8, 8, 1), np.uint8))


def test_what_diverged_is_told_and_costs_no_other(done):
  workdir, outcome = done
  found = outcome.results
  assert [found.num_diverged(g) for g in found.groups] == [0, 0, 2, 0, 1]
  assert np.isfinite(found.values(LOSS, 'fast')).all()
  rows = {row['group']: row for row in outcome.rows}
  assert rows['lost'] == {
    'group': 'lost', 'runs': 2, 'diverged': 2, LOSS: '–', 'test/accuracy': '–'
  }  # fmt: skip
  assert (
    'is the first tensor' in (workdir / 'runs/linear_lost/diverged.json').read_text()
  )


def test_a_run_that_diverged_has_its_seconds(done):
  workdir, outcome = done
  mark = json.loads((workdir / 'runs' / 'linear_lost' / 'diverged.json').read_text())
  found = outcome.results.runs['linear_lost']
  assert found.diverged and found.seconds == pytest.approx(mark['seconds'], abs=1e-2)
  record = json.loads((workdir / 'study.json').read_text())['runs']['linear_lost']
  # It compiled a program of its own, as the run beside it did.
  assert record['seconds'] > 0.1 * outcome.results.runs['linear'].seconds > 0


FORK = """
from experiments.foundations.softmax_regression import Config, build as made

def build(config):
  built = made(config)
  return built._replace(train_step=lambda s, b: step(built, s, b), figures={})

def step(built, state, batch):
  new, sums = built.train_step(state, batch)
  head = dict(new.params['head'])
  head['bias'] += (new.step > 4) * FAULT
  return new._replace(params={**new.params, 'head': head}), sums
"""


def test_what_diverged_is_trained_again_by_other_source(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, 'path', list(sys.path))  # A fork's folder joins it.
  fork = tmp_path / 'lost_fork.py'
  monkeypatch.setitem(sys.modules, 'lost_fork', None)
  del sys.modules['lost_fork']  # Whatever is loaded by that name leaves with the test.
  fields = {'num_steps': 8, 'batch_size': 16, 'save_every_steps': 2}
  study = Study({'only': Run(str(fork), fields)}, (LOSS,))
  go = lambda: engine.run(
    study, StudyConfig(), tmp_path / 'w', name='mine', module=__name__, terminal=False
  )
  fork.write_text(FORK.replace('FAULT', "float('nan')"))
  first = go().results.runs['only']
  assert first.diverged and first.seconds > 0
  # The same source: its mark stands, and nothing is trained.
  with monkeypatch.context() as patched:
    patched.setattr(engine, 'fit', None)
    assert go().results.runs['only'].seconds == pytest.approx(first.seconds, abs=1e-2)
  fork.write_text(FORK.replace('FAULT', '0.0'))
  monkeypatch.delitem(sys.modules, 'lost_fork')
  capsys.readouterr()
  found = go().results.runs['only']
  assert 'only diverged with other source: it goes on' in capsys.readouterr().err
  assert not found.diverged and np.isfinite(found.metrics[LOSS])
  assert not (tmp_path / 'w' / 'runs' / 'only' / 'diverged.json').exists()


def test_claims_table_and_page(done):
  workdir, outcome = done
  held = [v.holds for v in outcome.verdicts.values()]
  assert held == [True, False]
  record = json.loads((workdir / 'study.json').read_text())
  assert [c['holds'] for c in record['claims']] == held
  assert record['finished'] and record['study'] == 'mine'
  assert (workdir / 'table.md').read_text().count('\n| ') == 2 + 5
  page = render(workdir).read_text()
  assert page.index('A higher rate learns faster.') < page.index('Results')
  assert 'not held' in page and 'Cross-entropy, test (nats)' in page


def test_the_page_executes_and_trusts_nothing(done, tmp_path):
  record = json.loads((done[0] / 'study.json').read_text())
  bad = '<script>alert(1)</script>'
  record['claims'][0]['claim'] = record['study'] = bad
  record['runs'][bad] = {'group': bad, 'fields': {bad: bad}, 'experiment': bad}
  record['table'].append({bad: bad})
  (tmp_path / 'study.json').write_text(json.dumps(record))
  assert bad not in render(tmp_path).read_text()


def test_called_again_it_trains_nothing(done, monkeypatch):
  workdir, outcome = done
  before = kept(workdir)

  def trained(*args):
    raise AssertionError('a run was trained again')

  monkeypatch.setattr(loop, '_turn', trained)
  again = run(workdir)
  assert kept(workdir) == before
  assert again.rows == outcome.rows


def test_left_in_the_middle_it_goes_on(done, tmp_path, monkeypatch):
  fit = loop.fit
  for stop_at in (1, 3):
    cut = lambda *args, n=stop_at, **kw: fit(*args, **kw, stop_at=n)
    monkeypatch.setattr(engine, 'fit', cut)
    outcome = run(tmp_path / 'w')
    assert (outcome.status, outcome.done) == ('interrupted', 0)
    record = json.loads((tmp_path / 'w' / 'study.json').read_text())
    assert 'finished' not in record
    assert 'unfinished, 0 of 8 runs' in render(tmp_path / 'w').read_text()
  monkeypatch.setattr(engine, 'fit', fit)
  assert run(tmp_path / 'w').status == 'finished'
  assert kept(tmp_path / 'w') == kept(done[0])


def test_the_record_has_what_is_done_so_far(tmp_path, monkeypatch):
  def alone(*args):
    raise KeyboardInterrupt

  monkeypatch.setattr(engine, 'alone', alone)  # Killed after the first program.
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'w')
  there = json.loads((tmp_path / 'w' / 'study.json').read_text())['runs']
  assert sum('metrics' in one for one in there.values()) == 6
  assert 'unfinished, 6 of 8 runs' in render(tmp_path / 'w').read_text()


def test_a_study_grows_by_its_new_runs(done, tmp_path, monkeypatch):
  import shutil

  workdir = tmp_path / 'w'
  shutil.copytree(done[0], workdir)
  trained = []
  turn = loop._turn
  monkeypatch.setattr(
    loop, '_turn', lambda s, *a: trained.append(s.folder.path.name) or turn(s, *a)
  )
  small = {'slow': SETTINGS['slow'], 'fast': SETTINGS['fast']}
  config = StudyConfig(seeds=3)
  runs = {**over_seeds(StudyConfig(seeds=2), SETTINGS), **over_seeds(config, small)}
  outcome = run(workdir, config, runs={**runs, **ALONE})
  assert trained == ['2']  # One program for the two runs of seed 2.
  assert len(outcome.results.values(LOSS, 'fast')) == 3


def test_a_study_that_shrinks_leaves_what_is_there(done, tmp_path, monkeypatch):
  import shutil

  workdir = tmp_path / 'w'
  shutil.copytree(done[0], workdir)
  (workdir / 'together' / '7').mkdir()  # Killed before it said whose it is.
  trained = []
  turn = loop._turn
  monkeypatch.setattr(
    loop, '_turn', lambda s, *a: trained.append(s.folder.path.name) or turn(s, *a)
  )
  small = {'slow': SETTINGS['slow'], 'fast': SETTINGS['fast']}
  outcome = run(workdir, runs={**over_seeds(StudyConfig(seeds=2), small), **ALONE})
  assert trained == ['8'] and outcome.total == 6
  names = json.loads((workdir / 'together' / '1' / 'members.json').read_text())['runs']
  assert len(names) == 6
  assert outcome.results.mean(LOSS, 'fast') == pytest.approx(
    done[1].results.mean(LOSS, 'fast'), rel=1e-5
  )


@pytest.mark.parametrize(
  ('changes', 'told'),
  [
    ({'metrics': ('test/los',)}, 'test/los is not allowed: mlp reports no such figure'),
    (
      {'claims': {'x': lambda r: r.lower(LOSS, 'fats', than='slow')}},
      "'fats' is no group of this study: must be one of slow, fast",
    ),
    ({'runs': {}}, 'The study has no runs'),
    ({'runs': {'../a': Run('mlp')}}, "Run '../a' is not allowed: must be the name of"),
    ({'runs': {'a': Run('mlp'), 'A': Run('mlp')}}, "'a' and 'A' differ in case alone"),
    (
      {'runs': {'a': Run('mpl')}},
      'Run a: --exp=mpl is no experiment. Did you mean mlp',
    ),
    ({'runs': {'a': Run('mlp', {'rate': 1})}}, 'Run a: config.rate is not allowed'),
    (
      {'runs': {'a': Run('mlp', {'lr': -1.0})}},
      'Run a: --config.lr=-1.0 is not allowed',
    ),
    ({'runs': {'a': Run('dropout_rate')}}, 'Run a: --exp=dropout_rate is a study'),
  ],
)
def test_refused_before_anything_is_written(changes, told, tmp_path):
  with pytest.raises(ConfigError) as error:
    run(tmp_path / 'w', **changes)
  assert told in str(error.value)
  assert not (tmp_path / 'w').exists()


def test_other_fields_on_the_same_workdir(done):
  other = {**SETTINGS, 'fast': Run('mlp', {**FIELDS, 'lr': 2e-2})}
  runs = {**over_seeds(StudyConfig(seeds=2), other), **ALONE}
  before = kept(done[0])
  with pytest.raises(
    ConfigError, match='fast-0 of mlp .config.lr: 0.01 there, 0.02 now'
  ):
    run(done[0], runs=runs)
  assert kept(done[0]) == before


def test_two_at_once_are_refused(done):
  with engine.lock(pathlib.Path(done[0])):
    with pytest.raises(ConfigError, match='Another process trains the study'):
      run(done[0])


def test_another_width_has_a_program_of_its_own():
  configs = [
    Run('mlp', {**FIELDS, 'lr': lr, 'seed': s}) for lr in (0.1, 0.2) for s in (0, 1)
  ]
  named = {f'r{i}': run for i, run in enumerate(configs)}
  study = Study({**named, 'wide': Run('mlp', {**FIELDS, 'features': (9,)})}, (LOSS,))
  groups = [[t.name for t in g] for g in trials.programs(trials.expand(study))]
  assert groups == [['r0', 'r1', 'r2', 'r3'], ['wide']]
