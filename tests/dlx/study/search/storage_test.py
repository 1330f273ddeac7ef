"""Trials of several workers on a cheap function: each once, dead ones taken again."""

import dataclasses
import os
import time

import numpy as np
import optuna
import pytest
import sqlalchemy.exc

from dlx.config import Config as Base
from dlx.errors import ConfigError, StorageError
from dlx.study.search import address, opening, storage
from dlx.study.search.grammar import parse
from dlx.study.search.sampling import ETA, INDEX, Halving, Plan, suggest

PASSWORD = 'pÄss%40:/?wörd'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Base):
  lr: float = 0.1  # A rate.
  width: int = 4  # Units.
  model: str = 'mlp'  # A model.


RANGES = (
  'config.lr=loguniform(1e-4,1)',
  'config.width=int(1,8)',
  'config.model=mlp,cnn',
)
SPACE = parse(RANGES, Config())


def loss(params):
  """Least, 0, at lr=0.01, width=6, whatever the model."""
  return (np.log10(params['lr']) + 2) ** 2 + (params['width'] - 6) ** 2 / 10


def chooser(plan):
  whole = lambda params: len(params) == 3
  return storage.Chooser(plan.sampler, lambda trial: suggest(trial, SPACE), whole)


def take(store, plan, most=None):
  """The next trial."""
  return store.next(most, chooser(plan))


def search(store, plan, n):
  """The choices of n trials, one after the other."""
  for _ in range(n):
    one = take(store, plan)
    assert store.tell(one.trial, loss(one.params), {'seconds': 1.0})
  return [t.params for t in store.trials()]


@pytest.fixture
def open_shared(tmp_path):
  """seconds -> a worker's view of one database."""
  opened = []

  def new(seconds=1):
    at = address.parse(f'sqlite:///{tmp_path}/trials.db')
    opened.append(opening.shared(at, 's', 'minimize', stale_seconds=seconds))
    return opened[-1]

  yield new
  for store in opened:
    store.close()


@pytest.mark.parametrize('by', ['random', 'tpe', 'cmaes'])
def test_a_search_that_is_left_chooses_what_it_would_have_chosen(by, tmp_path):
  for name in 'abc':
    (tmp_path / name).mkdir()
  plan = Plan(by, SPACE, seed=3)
  whole = search(opening.local(tmp_path / 'a', 'minimize'), plan, 24)
  parts = []
  for n in (5, 1, 12, 6):  # Each a process of its own: nothing is kept but the file.
    store = opening.local(tmp_path / 'b', 'minimize')
    parts = search(store, Plan(by, SPACE, seed=3), n)
  assert parts == whole
  assert len({p['lr'] for p in whole}) == 24
  other = search(opening.local(tmp_path / 'c', 'minimize'), Plan(by, SPACE, 4), 2)
  assert other != whole[:2]


@pytest.mark.parametrize(('by', 'trials'), [('tpe', 60), ('cmaes', 60)])
def test_what_was_found_guides_the_next(by, trials, tmp_path):
  (tmp_path / 'w').mkdir()
  found = search(opening.local(tmp_path / 'w', 'minimize'), Plan(by, SPACE, 0), trials)
  first, last = ([loss(p) for p in part] for part in (found[:15], found[-15:]))
  # Of draws at random the mean is 1.3 + 0.8, over width and lr.
  assert np.mean(last) < 0.5 * np.mean(first)
  assert min(last) < 0.2


def test_a_trial_half_chosen_and_a_line_half_written(tmp_path):
  store = opening.local(tmp_path, 'minimize')
  plan = Plan('tpe', SPACE, 0)
  search(store, plan, 11)
  one = take(store, plan)
  path = tmp_path / opening.FILE
  data = path.read_bytes()
  # Without the choice of the last field, and with a part of its line.
  lines = data.splitlines(keepends=True)
  path.write_bytes(b''.join(lines[:-1]) + lines[-1][:9])
  store = opening.local(tmp_path, 'minimize')
  (cut,) = [t for t in store.trials() if t.state.name == 'RUNNING']
  assert len(cut.params) == 2
  (again,) = store.begun(chooser(plan))
  assert again.index == 11 and again.params == one.params


def test_several_workers_take_each_index_once(open_shared):
  plan = Plan('random', SPACE, 0)
  a, b = open_shared(), open_shared()
  taken = [take(store, plan, 5) for store in (a, b, b, a, b)]
  assert [one.index for one in taken] == [0, 1, 2, 3, 4]
  assert take(a, plan, 5) is None
  for store, one in zip((a, b, b, a, b), taken):
    assert one.params == plan.params(one.index)
    assert store.tell(one.trial, loss(one.params), {})
  assert [t.user_attrs[INDEX] for t in b.trials()] == [0, 1, 2, 3, 4]


def test_of_two_that_take_an_index_at_once_one_keeps_it(open_shared):
  plan = Plan('random', SPACE, 0)
  a, b = open_shared(), open_shared()
  create, raced = b._storage.create_new_trial, []

  def late(study_id, template_trial=None):
    if not raced:  # Between the look at what is free and the trial.
      raced.append(take(a, plan))
    return create(study_id, template_trial=template_trial)

  b._storage.create_new_trial = late
  one = take(b, plan)
  assert (raced[0].index, one.index) == (0, 1)
  assert [t.user_attrs[INDEX] for t in a.trials()] == [0, 1]


def test_the_trial_of_a_dead_worker_is_taken_again(open_shared):
  plan = Plan('tpe', SPACE, 0)
  dead, alive = open_shared(2), open_shared(2)
  one = take(dead, plan)
  # Another that died before its first beat.
  template = optuna.create_trial(
    state=optuna.trial.TrialState.RUNNING, user_attrs={INDEX: 1}
  )
  with storage.quiet():
    dead._storage.create_new_trial(dead._study_id, template_trial=template)
  with alive.beating():
    mine = take(alive, plan)
    assert mine.index == 2
    deadline = time.monotonic() + 60
    found = {}
    while len(found) < 2 and time.monotonic() < deadline:
      again = take(alive, plan, 2)
      if again is None:
        time.sleep(0.2)
      else:
        found[again.index] = again
    assert sorted(found) == [0, 1]
    assert found[0].params == one.params  # It goes on with what it was.
    # The one that seemed dead comes back: what it found is left out.
    assert not dead.tell(one.trial, 0.0, {})
    assert alive.tell(found[0].trial, 1.0, {})
    assert alive.tell(mine.trial, 2.0, {})  # It was alive all the time.
  assert [t.value for t in alive.trials()] == [1.0, None, 2.0]


def test_a_database_that_goes_away_is_waited_for(open_shared, capsys, monkeypatch):
  store = open_shared()
  monkeypatch.setattr(time, 'sleep', lambda seconds: None)
  gone = sqlalchemy.exc.OperationalError(
    f'INSERT {PASSWORD}', {'x': PASSWORD}, Exception('server closed\nthe connection')
  )
  answers = [gone, storage.StorageInternalError('wrapped'), 7]
  answers[1].__cause__ = gone

  def ask():
    answer = answers.pop(0)
    if isinstance(answer, Exception):
      raise answer
    return answer

  assert store.call(ask) == 7
  told = capsys.readouterr().err.splitlines()
  assert len(told) == 2 and 'does not answer (server closed): trying again' in told[0]
  assert told[1].endswith('answers again.') and PASSWORD not in ''.join(told)
  # It stays away; a full disk is not waited for.
  store._wait = 0
  answers[:] = [gone, gone]
  with pytest.raises(StorageError, match='server closed: what is finished is kept'):
    store.call(ask)
  answers[:] = [
    sqlalchemy.exc.OperationalError('', {}, Exception('database or disk is full'))
  ]
  store._wait = 600
  with pytest.raises(StorageError, match='disk is full: what is finished is kept; men'):
    store.call(ask)


def test_halving_by_hand():
  study = optuna.create_study()
  pruner = Halving(first=10)
  assert ETA == 3 and pruner.rungs(90) == [10, 30]
  assert pruner.rungs(91) == [10, 30, 90]
  kept = []
  for value in (5.0, 6.0, 4.0, 4.5, 3.0, 9.0, 3.5):
    trial = study.ask()
    trial.report(value, 10)
    pruned = pruner.prune(study, study._storage.get_trial(trial._trial_id))
    assert pruned == pruner.prune(study, study._storage.get_trial(trial._trial_id))
    kept.append(not pruned)
  # The best of up to 5; of 6 or 7 one of the best 2.
  assert kept == [True, False, True, False, True, False, True]


@pytest.mark.parametrize(
  ('text', 'url', 'password'),
  [
    ('postgresql://u:secret@h:5/d', 'u@h:5/d', 'secret'),
    ('postgres://u@h/d', 'u@h/d', None),
    ('postgresql:///d', '/d', None),
    ('postgresql://u:a%40b%2Fc@/d?host=/tmp/x', 'u@/d?host=/tmp/x', 'a@b/c'),
    ('postgresql://u:p@ss@h/d', 'u@h/d', 'p@ss'),
  ],
)
def test_addresses(text, url, password):
  found = address.parse(text)
  assert found.url == f'postgresql+psycopg://{url}' and found.is_server
  assert found.password == password and found.told == f'postgresql://{url}'
  assert address.parse(text, 'other').password == 'other'


@pytest.mark.parametrize(
  'text',
  [
    'mysql://u:secret@h/d',
    'postgresql://u:secret@h',
    'postgresql://u:sec/secret@h/d',
    'postgresql://u:secret #x@h/d',
    'postgresql://u@h/d?password=secret',
    'sqlite://u:secret@x',
  ],
)
def test_a_wrong_address_is_told_without_its_password(text):
  with pytest.raises(ConfigError, match='must be postgresql://USER@HOST') as error:
    address.parse(text)
  assert (
    'secret' not in str(error.value).replace(f'={text} is', '=') or text == 'secret'
  )
  if '://' in text and text != 'secret':
    assert 'secret' not in str(error.value)


def test_argv_without_password():
  argv = [
    'sweep.py',
    '--storage=postgresql://u:p@ss w/rd@h/d?x=1',
    'postgresql://u:secret@h/d',
    '--storage_password_file=/a/b',
    '--sweep=config.lr=log(1e-4,1,3)',
  ]
  assert address.without_password(argv) == [
    'sweep.py',
    '--storage=postgresql://u:***@h/d?x=1',
    'postgresql://u:***@h/d',
    '--storage_password_file=/a/b',
    '--sweep=config.lr=log(1e-4,1,3)',
  ]


def test_a_server_that_is_not_there():
  at = address.parse(f'postgresql://u@/d?host={os.getcwd()}/none', 'secret')
  with pytest.raises(
    ConfigError, match='--storage: the database postgresql://u@/d'
  ) as e:
    opening.shared(at, 's', 'minimize', stale_seconds=5)
  assert 'secret' not in str(e.value) and '\n' not in str(e.value)
