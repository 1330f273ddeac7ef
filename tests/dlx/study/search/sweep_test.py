"""Sweeps of real runs: left and gone on with, halving, the best config, the page."""

import json

import numpy as np
import pytest

import dlx
from dlx.errors import ConfigError
from dlx.report import render
from dlx.run import experiments_by_name, loop
from dlx.study import engine
from dlx.study.search import address, sweep
from dlx.study.search.declaration import Sweep
from dlx.study.search.grammar import parse
from tests.turns import seldom

FIELDS = dict(
  num_steps=4,
  batch_size=16,
  features=(8,),
  dropout=0.0,
  input_dropout=0.0,
  batch_norm=False,
  eval_every_steps=None,
  validation=0.2,
)
LOSS = 'validation/loss'
RANGES = ('lr=1e-3,1e-2,1e38', 'features=8|16')


def declared(*ranges, exp='mlp', fields=FIELDS, **options):
  found = experiments_by_name.load(exp)
  space = parse([f'config.{text}' for text in ranges], found.config_class(**fields))
  given = {'search': 'grid', 'metric': LOSS, **options}
  return Sweep(found, space, **given)


def run(workdir, *ranges, argv=(), **options):
  search = declared(*ranges or RANGES, **options)
  return sweep.run(search, workdir, argv=argv, terminal=False)


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  """Six trials of two seeds: two programs of six runs."""
  workdir = tmp_path_factory.mktemp('sweep') / 'w'
  return workdir, run(workdir, seeds=2, argv=['sweep.py', '--exp=mlp'])


def kept(workdir):
  """What does not depend on the clock or on the folder."""
  record = json.loads((workdir / 'sweep.json').read_text())
  for one in record['runs'].values():
    del one['seconds']
  del record['best'], record['argv']
  return record, (workdir / 'table.md').read_text()


def test_runs_that_differ_in_numbers_are_one_program(done):
  workdir, outcome = done
  assert (outcome.status, outcome.done) == ('finished', 6)
  members = [
    json.loads((folder / 'members.json').read_text())['runs']
    for folder in sorted((workdir / 'together').iterdir())
  ]
  names = lambda *trials: [f'trial-{i:04d}-{seed}' for i in trials for seed in (0, 1)]
  assert members == [names(0, 2, 4), names(1, 3, 5)]


def test_the_best_comes_first_and_what_diverged_last(done):
  workdir, outcome = done
  assert [row['state'] for row in outcome.rows] == 4 * ['done'] + 2 * ['diverged']
  record = json.loads((workdir / 'sweep.json').read_text())
  means = [
    sum(record['runs'][f'{row["trial"]}-{seed}']['metrics'][LOSS] for seed in (0, 1))
    for row in outcome.rows[:4]
  ]
  assert means == sorted(means)
  assert outcome.best['trial'] == outcome.rows[0]['trial']
  assert outcome.best['value'] == pytest.approx(means[0] / 2)
  assert outcome.rows[0]['lr'] == '0.01'


def test_the_best_run_is_opened(done):
  workdir, outcome = done
  found = dlx.open(workdir / 'runs' / f'{outcome.best["trial"]}-1')
  assert (found.config.lr, found.config.seed) == (0.01, 1)
  shape = found.functions['predict'].inputs['image'].shape
  assert found.predict(image=np.zeros(shape, np.uint8)).shape == (10,)


def test_the_best_config_is_a_flagfile(done):
  from launch import train
  from launch.flags import command_line, config_flags

  workdir, outcome = done
  argv = ['train', f'--flagfile={workdir}/best.flags']
  values, found = command_line.parse(argv, train.define, '')
  config = config_flags.build(found.config_class, values)
  there = json.loads(
    (workdir / 'runs' / f'{outcome.best["trial"]}-0' / 'config.json').read_text()
  )
  from dlx.config_json import config_to_json

  assert config_to_json(config) == there['config']
  assert f'--flagfile={workdir}/best.flags' in outcome.best['command']


def test_the_page_and_rows_of_tensorboard(done):
  workdir, _ = done
  page = render(workdir).read_text()
  assert page.index('<h2>Best') < page.index('<h2>Figures') < page.index('<h2>Results')
  assert 'launch.sweep --exp=mlp' in page and 'unfinished' not in page
  assert sorted(p.name for p in (workdir / 'hparams').iterdir()) == [
    f'trial-{i:04d}' for i in range(4)
  ]
  bad = '<script>alert(1)</script>'
  record = json.loads((workdir / 'sweep.json').read_text())
  record['best']['fields'] = record['search']['fields'] = {bad: bad}
  record['study'] = record['best']['command'] = bad
  other = workdir.parent / 'other'
  other.mkdir()
  (other / 'sweep.json').write_text(json.dumps(record))
  assert bad not in render(other).read_text()


def test_called_again_it_trains_nothing_and_another_search_is_refused(
  done, monkeypatch
):
  workdir, outcome = done
  before = kept(workdir)

  def trained(*args):
    raise AssertionError('a run was trained again')

  monkeypatch.setattr(loop, '_turn', trained)
  assert run(workdir, seeds=2).rows == outcome.rows
  assert kept(workdir) == before
  told = 'of another search .config.lr: 1e-3,1e-2,1e38 there, 1e-3,1e-1 now'
  with pytest.raises(ConfigError, match=told):
    run(workdir, 'lr=1e-3,1e-1', 'features=8|16', seeds=2)
  with pytest.raises(ConfigError, match='--seeds: 2 there, 3 now'):
    run(workdir, seeds=3)
  with engine.lock(workdir):
    with pytest.raises(ConfigError, match='Another process trains'):
      run(workdir, seeds=2)


def test_left_in_the_middle_it_goes_on(done, tmp_path, monkeypatch):
  fit, cuts = loop.fit, []

  def cut(*args, **options):
    """Leaves the first program at step 1, then at its end, then the second at 3."""
    cuts.append(args[2].name)
    if len(cuts) == 3:
      raise KeyboardInterrupt  # Before anything of the second program is there.
    stop_at = {1: 1, 4: 3}.get(len(cuts))
    return fit(*args, **{**options, 'stop_at': stop_at})

  monkeypatch.setattr(engine, 'fit', cut)
  assert run(tmp_path / 'w', seeds=2).status == 'interrupted'
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'w', seeds=2)
  outcome = run(tmp_path / 'w', seeds=2)
  assert (outcome.status, outcome.done) == ('interrupted', 3)
  assert run(tmp_path / 'w', seeds=2).status == 'finished'
  assert cuts == 2 * ['trial-0000-0'] + 3 * ['trial-0001-0']
  assert kept(tmp_path / 'w') == kept(done[0])


@seldom(1)
def test_more_trials_on_the_same_workdir(tmp_path):
  ranges = ('lr=loguniform(1e-4,1e-2)',)
  run(tmp_path / 'w', *ranges, search='random', trials=2, seed=3)
  grown = run(tmp_path / 'w', *ranges, search='random', trials=3, seed=3)
  whole = run(tmp_path / 'v', *ranges, search='random', trials=3, seed=3)
  fields = lambda o: {row['trial']: row['lr'] for row in o.rows}
  assert fields(grown) == fields(whole) and len(fields(whole)) == 3
  steps = run(tmp_path / 'u', *ranges, search='random', at_once=1, steps=5)
  assert steps.done == 2  # Of 4 steps each: the second begins below 5.


@seldom(2)
def test_halving_leaves_most_trials_early_and_goes_on(tmp_path, monkeypatch):
  fields = {'num_steps': 8, 'batch_size': 16, 'eval_every_steps': 2, 'validation': 0.2}
  options = dict(exp='softmax_regression', fields=fields, search='halving', trials=3)
  ranges = ('lr=0.1,1e-4,0.2,1e-3',)
  whole = run(tmp_path / 'a', *ranges, **options, seed=1)
  states = {row['trial']: row['state'] for row in whole.rows}
  assert states['trial-0000'] == 'done' and 'pruned at step 2' in states.values()
  # Left at each start, it ends the same.
  fit, calls = loop.fit, []

  def cut(*args, **options):
    calls.append(1)
    if len(calls) % 2 == 0:
      raise KeyboardInterrupt
    return fit(*args, **options)

  monkeypatch.setattr(engine, 'fit', cut)
  for _ in range(20):
    try:
      again = run(tmp_path / 'b', *ranges, **options, seed=1)
      break
    except KeyboardInterrupt:
      pass
  assert again.rows == whole.rows and len(calls) > 4


@pytest.mark.parametrize(
  ('ranges', 'options', 'told'),
  [
    (('lr=-1,0.1',), {}, 'lr=-1.0 is not allowed: .*It is of the trial --config.lr=-1'),
    ((), {'metric': 'validation/los'}, 'mlp reports no such figure; must be one of'),
    ((), {'metric': 'train/lr'}, 'reports no such figure'),
    ((), {'fields': {**FIELDS, 'validation': 0.0}}, 'validation=0.1 holds out a tenth'),
    (('seed=1,2',), {'seeds': 2}, 'not allowed with --sweep=config.seed'),
    ((), {'seed': -1}, '--seed=-1 is not allowed'),
    ((), {'search': 'best'}, '--search=best is not allowed: must be one of grid'),
    (('compute_dtype=float32,float64',), {}, 'float64 is a mode of the whole process'),
    ((), {'trials': 0}, '--trials=0 is not allowed: must be above 0'),
    ((), {'search': 'halving'}, 'give --config.eval_every_steps, .* e.g. 1'),
    (
      ('num_steps=2,4',),
      {'search': 'halving', 'fields': {**FIELDS, 'eval_every_steps': 1}},
      '--sweep=config.num_steps is not allowed',
    ),
  ],
)
def test_refused_before_anything_is_written(ranges, options, told, tmp_path):
  with pytest.raises(ConfigError, match=told):
    run(tmp_path / 'w', *ranges, **options)
  assert not (tmp_path / 'w').exists()


def test_two_workers_share_a_database(tmp_path):
  """The second finds all done; both have every record. No password is anywhere."""
  at = address.parse(f'sqlite:///{tmp_path}/trials.db')
  argv = ['sweep.py', '--storage=postgresql://u:geheim@h/d']
  outcomes = []
  for name in ('a', 'b'):
    search = declared('lr=1e-3,1e-2', seeds=2)
    options = {'address': at, 'argv': argv, 'terminal': False}
    outcomes.append(sweep.run(search, tmp_path / name, **options))
  assert outcomes[0].rows == outcomes[1].rows and len(outcomes[0].rows) == 2
  assert (tmp_path / 'b' / 'best.flags').read_text() == (
    tmp_path / 'a' / 'best.flags'
  ).read_text()
  assert not (tmp_path / 'b' / 'runs').exists()
  for path in tmp_path.rglob('*'):
    assert path.is_dir() or b'geheim' not in path.read_bytes(), path
  assert json.loads((tmp_path / 'a' / 'sweep.json').read_text())['argv'] == [
    'sweep.py', '--storage=postgresql://u:***@h/d'
  ]  # fmt: skip
