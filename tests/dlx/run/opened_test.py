"""A run opened again: from a moved workdir, rows of any number, with trust or not."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import chex
import jax.numpy as jnp
import numpy as np
import pytest

import dlx
from dlx import beside, runs
from dlx.config_json import config_to_json
from dlx.data.prepare import arrays
from dlx.data.sets import cards
from dlx.data.text.vocabulary import Vocab
from dlx.errors import ConfigError, DataError
from dlx.experiment import Experiment, Field, Function
from dlx.run import opened
from experiments.foundations import softmax_regression
from launch import call, checkpoint, evaluate, report
from launch.machine import devices

CONFIG = dataclasses.replace(
  softmax_regression.SMALL, ema_decay=0.2, best_metric='test/accuracy', best_mode='min'
)
PIXELS = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir that was moved; the experiment."""
  folder = tmp_path_factory.mktemp('opened')
  experiment = softmax_regression.build(CONFIG)
  bare = experiment._replace(figures={})
  runs.fit(bare, CONFIG, folder / 'then', terminal=False)
  return (folder / 'then').rename(folder / 'now'), experiment


def test_a_trained_run(trained):
  workdir, experiment = trained
  run = dlx.open(workdir)
  assert run.config == CONFIG
  result = json.loads((workdir / 'result.json').read_text())
  assert run.metrics == result['metrics']
  assert (run.step, int(run.state.step)) == (CONFIG.num_steps, CONFIG.num_steps)
  state = runs.state(experiment, CONFIG, workdir)
  assert str(run.state.rng) == str(state.rng)
  wanted = experiment.functions['predict'].call(state, {'image': PIXELS})
  found = run.predict(image=PIXELS)
  np.testing.assert_allclose(found, wanted['probabilities'], rtol=1e-5)
  np.testing.assert_allclose(run.predict(image=PIXELS[1]), found[1], rtol=1e-5)
  for name in ('hidden', '_ipython_display_'):
    assert not hasattr(run, name)
  assert 'predict' in dir(run)
  chex.assert_trees_all_equal(run.params, state.ema)
  chex.assert_trees_all_equal(run.state.opt_state, state.opt_state)


def test_metrics_of_a_run_under_way_are_its_last_lines(trained, tmp_path):
  workdir, _ = trained
  (tmp_path / 'config.json').write_bytes((workdir / 'config.json').read_bytes())
  lines = [(2, 'train', 3.0), (3, 'test', 2.0), (4, 'train', 1.0)]
  text = ''.join(
    json.dumps({'step': n, 'split': split, 'metrics': {'loss': x}}) + '\n'
    for n, split, x in lines
  )
  (tmp_path / 'metrics.jsonl').write_text(text)
  assert dlx.open(tmp_path).metrics == {'train/loss': 1.0, 'test/loss': 2.0}
  with pytest.raises(ConfigError, match='holds no checkpoint'):
    dlx.open(tmp_path).state  # noqa: B018


@pytest.mark.parametrize('step', ['best', 3, 99])
def test_the_step_that_is_asked_for(trained, step):
  workdir, experiment = trained
  run = dlx.open(workdir, step=step)
  if step == 99:
    with pytest.raises(ConfigError, match='no checkpoint of step 99'):
      run.predict(image=PIXELS)
    return
  wanted = runs.state(experiment, CONFIG, workdir, step=step)
  assert int(run.state.step) == int(wanted.step)
  assert int(wanted.step) == 3  # Of 6: the lowest figure that was saved.
  chex.assert_trees_all_equal(run.state.params, wanted.params)


def test_read_from_another_folder(trained, tmp_path, monkeypatch):
  monkeypatch.chdir(trained[0].parent)
  run = dlx.open(trained[0].name)
  monkeypatch.chdir(tmp_path)
  assert run.metrics and run.step == CONFIG.num_steps


def test_no_run_is_there(tmp_path):
  with pytest.raises(ConfigError, match='holds no run'):
    dlx.open(tmp_path)


def test_opening_starts_no_jax(trained):
  code = (
    'import sys, dlx\n'
    f'run = dlx.open({str(trained[0])!r})\n'
    "assert run.metrics['test/accuracy'] >= 0 and run.record['config']\n"
    "print([m for m in ('jax', 'flax') if m in sys.modules])"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=beside.ROOT
  )
  assert (done.stdout.strip(), done.stderr) == ('[]', '')


# Functions by hand, without weights.


class Letters:
  """a is 0, b is 1, and so on."""

  def __len__(self):
    return 26

  def encode(self, text):
    return [ord(c) - 97 for c in text]

  def decode(self, tokens):
    return ''.join(chr(97 + int(t)) for t in tokens)


TRACED = []


def nexts(state, inputs, *, by=1):
  """Each token plus `by`, and what the row was given."""
  TRACED.append(inputs['tokens'].shape)
  return {'tokens': (inputs['tokens'] + by + state) % 26}


def mixed(state, inputs):
  return {'seed': inputs['seed'], 'sum': inputs['x'].sum(1) + inputs['scale']}


WORDS = Field('tokens', ('length',), 'int32', vocabulary=lambda data_dir: Letters())
SEED, NUMBER = Field('seed', (), 'uint32'), Field('number', (), 'float32', default=2.0)
ROW = Field('row', (2,), 'float32')
FUNCTIONS = {
  'generate': Function(nexts, {'tokens': WORDS}, {'tokens': WORDS}, {'by': 1}),
  'score': Function(
    mixed, {'x': ROW, 'seed': SEED, 'scale': NUMBER}, {'seed': SEED, 'sum': NUMBER}
  ),
  'sample': Function(
    lambda state, inputs: dict(inputs), {'seed': SEED}, {'seed': SEED}
  ),
}


@pytest.fixture
def run(tmp_path):
  """A run of functions by hand."""
  text = json.dumps({'experiment': 'by_hand', 'config': {}})
  (tmp_path / 'config.json').write_text(text)
  found = dlx.open(tmp_path)
  made = Experiment(None, None, None, functions=FUNCTIONS)  # type: ignore[arg-type]
  vars(found).update(_opened=(None, made), _used=jnp.int32(0))
  TRACED.clear()
  return found


def test_text_in_text_out(run):
  assert run.generate(tokens='abz') == 'bca'
  assert run.generate(tokens=['ab', 'c', 'de'], by=2) == ['cd', 'e', 'fg']
  np.testing.assert_array_equal(run.generate(tokens=[0, 1]), [1, 2])
  found = run.generate(tokens=[[0, 1], [5]])
  assert [row.tolist() for row in found] == [[1, 2], [6]]


def test_a_program_for_each_power_of_two(run):
  for n in (1, 2, 3, 4, 3, 7):
    found = run.generate(tokens=np.full((n, 2), n))
    np.testing.assert_array_equal(found, np.full((n, 2), n + 1))
  assert TRACED == [(1, 2), (2, 2), (4, 2), (8, 2)]


def test_a_program_for_each_power_of_two_of_tokens(run):
  def mean(state, inputs):
    TRACED.append(inputs['tokens'].shape)
    tokens = inputs['tokens']
    return {'mean': jnp.where(tokens < 26, tokens, 0).sum(1) / (tokens < 26).sum(1)}

  function = Function(mean, {'tokens': WORDS._replace(pad=26)}, {'mean': NUMBER})
  vars(run)['_opened'] = (None, run.experiment._replace(functions={'score': function}))
  texts = ['abcdefghijklmnopqrstuvwxyz'[:n] for n in range(1, 21)]
  for text in texts:
    assert run.score(tokens=text) == pytest.approx((len(text) - 1) / 2)
  assert TRACED == [(1, 8), (1, 16), (1, 32)]
  # Together: 8 rows of up to 8 tokens, 8 of up to 16, and 4.
  assert run.score(tokens=texts) == pytest.approx(np.arange(20) / 2)
  assert TRACED[3:] == [(8, 8), (8, 16), (4, 32)]


def test_many_rows_are_cut(run, monkeypatch):
  monkeypatch.setattr(opened, 'MOST_ROWS', 4)
  tokens = np.arange(11)[:, None] % 26
  np.testing.assert_array_equal(run.generate(tokens=tokens), tokens + 1)
  assert TRACED == [(4, 1)]  # 4, 4 and 3 rows.


def test_one_beside_many_and_defaults(run):
  found = run.score(x=[[1, 2], [3, 4]], seed=[5, 6])
  np.testing.assert_array_equal(found['sum'], [5, 9])
  np.testing.assert_array_equal(found['seed'], [5, 6])
  found = run.score(x=[1, 2], scale=[0, 1, 2])
  np.testing.assert_array_equal(found['sum'], [3, 4, 5])
  assert len(set(found['seed'].tolist())) == 3
  one = run.score(x=[1, 2], scale=1)
  assert (float(one['sum']), int(one['seed'])) == (4, 0)


def test_rows_that_no_input_counts(run):
  eight = run.sample(8, seed=3)
  assert eight.shape == (8,) and len(set(eight.tolist())) == 8
  np.testing.assert_array_equal(run.sample(2, seed=3), eight[:2])
  assert (run.sample(1, seed=3).tolist(), run.sample(seed=3).tolist()) == ([3], 3)


@pytest.mark.parametrize(
  ('what', 'n', 'given', 'says'),
  [
    ('score', None, {}, r'x is missing: give x \(row, float32 \[2\]\)'),
    ('score', None, {'y': 1}, 'y is not allowed: must be one of x'),
    ('score', None, {'x': [[1, 2]] * 2, 'seed': [1] * 3}, 'x has 2, seed has 3'),
    ('score', 3, {'x': [[1, 2]] * 2}, 'x has 2, and 3 rows are asked for'),
    ('sample', 0, {}, '0 rows are not allowed'),
    ('decode', None, {}, 'decode is no function of by_hand: must be one of generate'),
    ('generate', None, {'tokens': 'a', 'by_': 2}, 'an option: by=1'),
  ],
)
def test_refused(run, what, n, given, says):
  with pytest.raises(ConfigError, match=says) as caught:
    run.call(what, n, **given)
  assert '\n' not in str(caught.value)


def test_a_size_that_a_function_refuses(run):
  def at_most(state, inputs):
    if inputs['tokens'].shape[1] > 2:
      raise ValueError('3 tokens are not allowed')
    return inputs

  function = Function(at_most, {'tokens': WORDS}, {'tokens': WORDS})
  vars(run)['_opened'] = (None, run.experiment._replace(functions={'score': function}))
  assert run.score(tokens='ab') == 'ab'
  with pytest.raises(ConfigError, match='score: 3 tokens are not allowed'):
    run.score(tokens='abc')


def test_a_vocabulary_that_was_kept_needs_no_data(run):
  def lost(data_dir):
    raise DataError(f'no texts in {data_dir}')

  field = WORDS._replace(vocabulary=lost)
  function = Function(nexts, {'tokens': field}, {'tokens': field})
  made = run.experiment._replace(functions={'generate': function})
  vars(run)['_opened'] = (None, made)
  np.testing.assert_array_equal(run.generate(tokens=[4]), [5])  # Numbers need none.
  with pytest.raises(DataError, match='no texts in None'):
    run.generate(tokens='good')
  words = Vocab(('<pad>', '<unk>', 'good', 'film'))
  with open(os.path.join(run.workdir, opened.VOCABULARY), 'w') as f:
    json.dump({'words': words.words}, f)
  assert run.generate(tokens='Good') == 'film'
  with open(os.path.join(run.workdir, opened.VOCABULARY), 'w') as f:
    json.dump({'words': ('<pad>', '<unk>', '!', 'a', 'b'), 'marks': True}, f)
  vars(run)['_vocabularies'].clear()
  assert run.generate(tokens='!A') == 'a b'
  with open(os.path.join(run.workdir, opened.VOCABULARY), 'w') as f:
    f.write('{}')
  vars(run)['_vocabularies'].clear()
  with pytest.raises(ConfigError, match='vocabulary must hold'):
    run.generate(tokens='good')


# Forks, and whose code runs.

FORK = """
import dataclasses
import pathlib
from dlx import experiment
import {helper}

pathlib.Path({marker!r}).write_text('ran')

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  lr: float = 0.5  # Rate.

def build(config):
  import {helper}
  return experiment.Experiment(None, None, None, functions={helper}.FUNCTIONS)
"""
HELPER = """
from dlx.experiment import Function
FUNCTIONS = {'predict': Function(None, {}, {})}
"""


@pytest.fixture
def fork(tmp_path, monkeypatch):
  """A workdir of a fork of two files, those at hand, and what shows that they ran."""
  name = f'helper_{tmp_path.name}'.replace('-', '_')
  marker = tmp_path / 'marker'
  texts = {'my_fork': FORK.format(helper=name, marker=str(marker)), name: HELPER}
  hand, kept = tmp_path / 'hand', tmp_path / 'run' / 'source'
  record = {'main': 'my_fork', 'sha256': {}}
  for folder in (hand, kept):
    folder.mkdir(parents=True)
    for module, text in texts.items():
      (folder / f'{module}.py').write_text(text)
      record['sha256'][module] = hashlib.sha256(text.encode()).hexdigest()
  told = {
    'experiment': str(hand / 'my_fork.py'),
    'config': {'lr': 0.25},
    'source': record,
  }
  (kept.parent / 'config.json').write_text(json.dumps(told))
  before, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
  yield kept.parent, hand, marker, name
  for module in set(sys.modules) - before:
    del sys.modules[module]
  sys.path[:], sys.meta_path[:] = path, finders


def is_refused(workdir, marker, says, **options):
  run = dlx.open(workdir, **options)
  assert run.config == {'lr': 0.25}  # As JSON.
  assert 'config' in dir(run) and 'my_fork' in repr(run)
  with pytest.raises(ConfigError, match=says) as caught:
    run.predict()
  assert 'trust=True' in str(caught.value) and '\n' not in str(caught.value)
  assert not marker.exists()


def runs_as_kept(run, marker):
  assert run.config.lr == 0.25
  assert list(run.functions) == ['predict']
  assert marker.exists()


def test_a_fork_at_hand_as_it_was_needs_no_trust(fork, capsys):
  workdir, _, marker, _ = fork
  runs_as_kept(dlx.open(workdir), marker)
  assert capsys.readouterr().err == ''


@pytest.mark.parametrize('which', [0, 1])
def test_a_fork_that_changed_runs_as_kept_with_trust(fork, which, capsys):
  """Whether its own file changed or one that it imports."""
  workdir, hand, marker, helper = fork
  changed = hand / (f'{helper}.py' if which else 'my_fork.py')
  changed.write_text(changed.read_text() + 'lr = 1\n')
  is_refused(workdir, marker, 'is not as it was .*1 lines added')
  runs_as_kept(dlx.open(workdir, trust=True), marker)
  assert f'not that of the run: {changed.stem} (1 lines' in capsys.readouterr().err


def test_a_strangers_fork(fork):
  workdir, hand, marker, _ = fork
  hand.rename(hand.with_name('elsewhere'))
  is_refused(workdir, marker, 'my_fork.py is not there')
  runs_as_kept(dlx.open(workdir, trust=True), marker)


def test_no_command_runs_a_strangers_fork(fork, monkeypatch, capsys):
  workdir, hand, marker, _ = fork
  monkeypatch.setattr(devices, 'use_compile_cache', lambda folder: None)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  hand.rename(hand.with_name('elsewhere'))
  (workdir / 'checkpoints').mkdir()
  flag = f'--workdir={workdir}'
  for main, words, status in (
    (call.main, [flag], 2),
    (call.main, [flag, 'predict'], 2),
    (evaluate.main, [flag], 2),
    (report.main, [flag], 0),
    (checkpoint.main, ['ls', str(workdir)], 2),
    (checkpoint.main, ['inspect', str(workdir)], 2),
  ):
    assert main(['x', *words]) == status, words
    assert capsys.readouterr().err.count('\n') <= 1
    assert not marker.exists(), words
  # A place that follows from where a person happens to stand is no place either.
  monkeypatch.chdir(hand.with_name('elsewhere'))
  told = json.loads((workdir / 'config.json').read_text())
  told['experiment'] = './my_fork.py'
  (workdir / 'config.json').write_text(json.dumps(told))
  assert evaluate.main(['x', flag]) == 2
  assert 'give --exp=PATH' in capsys.readouterr().err
  assert call.main(['x', flag]) == 2
  assert not marker.exists()


@pytest.mark.parametrize('place', ['{run}/source/my_fork.py', '{run}/../run/own.py'])
def test_a_file_in_the_workdir_is_not_at_hand(fork, place):
  workdir, hand, marker, helper = fork
  for name in ('my_fork.py', f'{helper}.py'):
    (workdir / name).write_bytes((hand / name).read_bytes())
  (workdir / 'own.py').write_bytes((hand / 'my_fork.py').read_bytes())
  told = json.loads((workdir / 'config.json').read_text())
  told['experiment'] = place.format(run=workdir)
  (workdir / 'config.json').write_text(json.dumps(told))
  run = dlx.open(workdir)
  with pytest.raises(ConfigError, match='came with the workdir'):
    run.predict()
  assert not marker.exists()


def test_a_name_that_is_none_of_ours(fork):
  workdir, _, marker, _ = fork
  for name in ('my_fork', '../my_fork', 'vision'):
    told = json.loads((workdir / 'config.json').read_text()) | {'experiment': name}
    (workdir / 'config.json').write_text(json.dumps(told))
    with pytest.raises(ConfigError, match='does not run'):
      dlx.open(workdir).predict()
  assert not marker.exists()


def test_a_copy_that_was_changed(fork):
  workdir, _, marker, _ = fork
  with open(workdir / 'source' / 'my_fork.py', 'a') as f:
    f.write('x = 1\n')
  with pytest.raises(ConfigError, match='my_fork.py is not what config.json says'):
    dlx.open(workdir, trust=True).predict()
  assert not marker.exists()


@pytest.mark.parametrize('name', ['../evil', '/tmp/evil', 'a/b', ''])
def test_a_copy_outside_of_the_workdir(fork, name):
  workdir, _, _, _ = fork
  told = json.loads((workdir / 'config.json').read_text())
  told['source']['sha256'][name] = '0' * 64
  (workdir / 'config.json').write_text(json.dumps(told))
  with pytest.raises(ConfigError, match='as a module: it is none'):
    dlx.open(workdir, trust=True).predict()


def test_where_the_fork_is_now(fork, capsys):
  workdir, hand, marker, _ = fork
  place = hand.rename(hand.with_name('elsewhere')) / 'my_fork.py'
  runs_as_kept(dlx.open(workdir, exp=place), marker)
  place.write_text(place.read_text().replace('lr: float', 'rate: float'))
  with pytest.raises(ConfigError, match='unknown: lr'):
    dlx.open(workdir, exp=str(place)).config  # noqa: B018
  assert '(1 lines added, 1 removed)' in capsys.readouterr().err
  with pytest.raises(ConfigError, match='exp=none.py is no experiment'):
    dlx.open(workdir, exp='none.py').config  # noqa: B018
  with pytest.raises(ConfigError, match='it has no Config and no build'):
    dlx.open(workdir, exp=json).config  # noqa: B018


def test_another_module_of_the_name_is_loaded(fork, monkeypatch):
  workdir, hand, marker, helper = fork
  (hand / f'{helper}.py').write_text('FUNCTIONS = {}\n')
  monkeypatch.syspath_prepend(str(hand))
  __import__(helper)
  with pytest.raises(ConfigError, match='another helper.* is loaded'):
    dlx.open(workdir, trust=True).predict()
  assert not marker.exists()


def test_words_of_the_training_texts_are_kept(tmp_path):
  words, asked = Vocab(('<pad>', '<unk>', 'good')), []
  read = lambda data_dir: asked.append(data_dir) or words
  field = WORDS._replace(vocabulary=read)
  functions = {'predict': Function(nexts, {'tokens': field}, {})}
  made = Experiment(None, None, None, functions=functions)  # type: ignore[arg-type]
  for _ in range(2):
    opened.keep_vocabulary(made, tmp_path, 'D')
  assert asked == ['D']  # Once.
  kept = json.loads((tmp_path / opened.VOCABULARY).read_text())
  assert kept == {'words': ['<pad>', '<unk>', 'good']}
  for other in (FUNCTIONS, {}):  # Letters are known without any text.
    folder = tmp_path / str(len(other))
    opened.keep_vocabulary(made._replace(functions=other), folder, None)
    assert not folder.exists()
  marked = Vocab(words.words, marks=True)
  field = WORDS._replace(vocabulary=lambda data_dir: marked)
  functions = {'predict': Function(nexts, {'tokens': field}, {})}
  (tmp_path / 'marked').mkdir()
  opened.keep_vocabulary(made._replace(functions=functions), tmp_path / 'marked', None)
  kept = json.loads((tmp_path / 'marked' / opened.VOCABULARY).read_text())
  assert kept['marks'] is True


def test_a_set_of_the_users_own_is_known_without_its_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  y = np.array([0, 1, 2] * 4)
  np.savez(tmp_path / 'own.npz', x=np.arange(48, dtype=np.uint8).reshape(12, 2, 2), y=y)
  card = arrays.prepare(tmp_path / 'own.npz', 'own').card
  origin = cards.source(card, 'train').read(None).origin
  config = config_to_json(softmax_regression.Config(dataset='own'))
  record = {'experiment': 'softmax_regression', 'config': config}
  record['data'] = {'train': origin}
  (tmp_path / 'config.json').write_text(json.dumps(record))
  monkeypatch.delenv('DLX_DATA_DIR')
  field = dlx.open(tmp_path).functions['predict'].inputs['image']
  assert field.shape == (2, 2, 1)
