"""Bad input ends in one line on stderr and status 2, before anything is made.

The real launcher, loop and experiments; in this process where a new one adds nothing.
"""

import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys

import jax
import pytest

from dlx.config_json import config_to_json
from dlx.run import experiments_by_name
from launch import evaluate, train

EXP = 'mlp'
CACHE = 'jax_enable_compilation_cache'
ROOT = pathlib.Path(__file__).parents[2]
MNIST = {
  'train-images-idx3-ubyte': (60000, 28, 28),
  'train-labels-idx1-ubyte': (60000,),
  't10k-images-idx3-ubyte': (10000, 28, 28),
  't10k-labels-idx1-ubyte': (10000,),
}
compiled: list[str] = []


def count_compilation(event: str, duration_secs: float, **kwargs):
  del duration_secs, kwargs
  if 'backend_compile' in event:
    compiled.append(event)


jax.monitoring.register_event_duration_secs_listener(count_compilation)


@pytest.fixture(autouse=True)
def nothing_is_made(tmp_path, monkeypatch):
  """An empty current folder, no data anywhere; afterwards it is as it was."""
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))  # Prepared sets lie there.
  cache = getattr(jax.config, CACHE)
  here = tmp_path / 'here'
  here.mkdir()
  monkeypatch.chdir(here)
  jax.random.key(0)  # A key is a program of its own, and not the experiment's.
  compiled.clear()
  yield
  jax.config.update(CACHE, cache)
  assert compiled == []
  assert list(here.iterdir()) == []


def refused(capfd, *args: str, main=train.main) -> str:
  """What the launcher says; exactly one line."""
  assert main(['train', '--compile_cache=off', *args]) == 2
  out, err = capfd.readouterr()
  return one_line(out, err)


def one_line(out: str, err: str) -> str:
  assert out == ''
  assert err.startswith('error: ') and err.count('\n') == 1, err
  return err


def refused_process(*args: str) -> str:
  """The same, by the command that a person types."""
  done = subprocess.run(
    [sys.executable, '-m', 'launch.train', '--compile_cache=off', *args],
    capture_output=True,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 2, done.stderr
  return one_line(done.stdout, done.stderr)


def names_three_remedies(said: str):
  """Raw files, a prepared set, a download."""
  for remedy in ('--data_dir=DIR', 'a TFDS set prepared', 'TFDS downloads it'):
    assert remedy in said


def idx(shape: tuple[int, ...]) -> bytes:
  """An idx file of zeros."""
  size = 1
  for n in shape:
    size *= n
  return (
    b'\0\0\x08'
    + bytes([len(shape)])
    + struct.pack(f'>{len(shape)}I', *shape)
    + (bytes(size))
  )


class TestProcesses:
  def test_unknown_experiment(self):
    said = refused_process('--exp=mpl')
    assert '--exp=mpl is no experiment. Did you mean mlp? Must be one of' in said

  def test_unknown_field(self):
    said = refused_process(f'--exp={EXP}', '--config.batch_sise=3')
    assert 'config.batch_sise' in said and 'Did you mean: config.batch_size' in said

  def test_missing_data(self):
    names_three_remedies(refused_process(f'--exp={EXP}', '--config.dataset=mnist'))

  def test_mesh_that_does_not_tile_the_devices(self):
    said = refused_process(f'--exp={EXP}', '--mesh=data=7')
    assert '--mesh=data=7 has 7 devices' in said


class TestFlags:
  def test_no_experiment(self, capfd):
    assert '--exp is missing' in refused(capfd)

  def test_no_such_file(self, capfd):
    assert 'no such file' in refused(capfd, '--exp=./my_fork.py')

  @pytest.mark.parametrize(
    'arg, allowed',
    [
      ('--config.num_steps=many', 'must be a whole number'),
      ('--config.num_steps=1e3', 'must be a whole number'),
      ('--config.clip_norm=big', 'must be a finite number, or none'),
      ('--config.stream=perhaps', 'must be true or false'),
      ('--stop_at=soon', 'must be a whole number'),
    ],
  )
  def test_wrong_type(self, capfd, arg, allowed):
    said = refused(capfd, f'--exp={EXP}', arg)
    assert arg in said and allowed in said

  @pytest.mark.parametrize(
    'arg, allowed',
    [
      ('--config.batch_size=0', 'at least 1'),
      ('--config.ema_decay=1.5', 'in (0, 1)'),
      ('--config.compute_dtype=float8', 'one of float32'),
      ('--config.micro_batches=7', 'a divisor of batch_size'),
      ('--stop_at=0', 'a positive integer'),
      ('--trace_steps=9:3', 'FIRST below END'),
    ],
  )
  def test_value_out_of_range(self, capfd, arg, allowed):
    said = refused(capfd, f'--exp={EXP}', arg)
    assert arg in said and allowed in said

  def test_trailing_words(self, capfd):
    said = refused(capfd, f'--exp={EXP}', 'config.lr=3', '--config.seed=1')
    assert "'config.lr=3' belongs to no flag" in said

  @pytest.mark.parametrize('mesh', ['data', 'date=1', 'data=0', 'data=1,data=1'])
  def test_mesh_that_is_none(self, capfd, mesh):
    assert f'--mesh={mesh}' in refused(capfd, f'--exp={EXP}', f'--mesh={mesh}')


class TestData:
  @pytest.fixture
  def mnist(self, tmp_path):
    """A folder with the four files; not the published ones."""
    folder = tmp_path / 'data' / 'mnist'
    folder.mkdir(parents=True)
    for name, shape in MNIST.items():
      (folder / name).write_bytes(idx(shape))
    return folder

  @pytest.mark.parametrize('data_dir', [None, 'empty', 'none'])
  def test_missing(self, capfd, tmp_path, data_dir):
    (tmp_path / 'empty').mkdir()
    given = [] if data_dir is None else [f'--data_dir={tmp_path / data_dir}']
    said = refused(capfd, f'--exp={EXP}', '--config.dataset=mnist', *given)
    names_three_remedies(said)

  @pytest.mark.parametrize(
    'name', ['train-images-idx3-ubyte', 't10k-labels-idx1-ubyte']
  )
  @pytest.mark.parametrize('zipped', [False, True])
  def test_truncated(self, capfd, mnist, name, zipped):
    path, whole = mnist / name, (mnist / name).read_bytes()
    if zipped:
      path.unlink()
      path = path.with_name(name + '.gz')
      whole = gzip.compress(whole)
    path.write_bytes(whole[: len(whole) // 2])
    # By another name than mnist, whose checksums would refuse zeros at once.
    mnist.rename(mnist.with_name('mine'))
    said = refused(
      capfd, f'--exp={EXP}', '--config.dataset=mine', f'--data_dir={mnist.parent}'
    )
    assert path.name in said and 'truncated' in said

  def test_not_the_published_file(self, capfd, mnist):
    said = refused(
      capfd, f'--exp={EXP}', '--config.dataset=mnist', f'--data_dir={mnist.parent}'
    )
    assert 'train-images-idx3-ubyte' in said and 'published' in said


class TestWorkdir:
  def written(self, folder, **fields):
    """A workdir as a run with these fields leaves it at its start."""
    found = experiments_by_name.load(EXP)
    config = config_to_json(found.config_class(**fields))
    folder.mkdir()
    run = {'experiment': EXP, 'config': config}
    (folder / 'config.json').write_text(json.dumps(run))
    (folder / 'checkpoints' / '5').mkdir(parents=True)  # Something was saved.
    return folder

  def test_of_another_config(self, capfd, tmp_path):
    folder = self.written(tmp_path / 'run', seed=3, batch_size=32)
    before = (folder / 'config.json').read_bytes()
    said = refused(capfd, f'--exp={EXP}', f'--workdir={folder}', '--config.seed=4')
    assert 'seed: 3 there, 4 here' in said and 'batch_size: 32 there' in said
    assert 'num_steps' not in said
    assert {p.name for p in folder.iterdir()} == {'config.json', 'checkpoints'}
    assert (folder / 'config.json').read_bytes() == before

  def test_of_another_experiment(self, capfd, tmp_path):
    folder = self.written(tmp_path / 'run')
    said = refused(capfd, '--exp=cnn', f'--workdir={folder}')
    assert 'mlp' in said and 'cnn' in said

  def test_with_a_broken_config_json(self, capfd, tmp_path):
    (tmp_path / 'config.json').write_text('{')
    said = refused(capfd, f'--exp={EXP}', f'--workdir={tmp_path}')
    assert 'config.json' in said

  def test_unwritable(self, capfd, tmp_path):
    # A file stands where a folder must; permissions would not stop a superuser.
    (tmp_path / 'file').write_text('kept')
    for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
      said = refused(capfd, f'--exp={EXP}', f'--workdir={workdir}')
      assert f'--workdir={workdir}' in said
    assert (tmp_path / 'file').read_text() == 'kept'

  def test_without_a_checkpoint(self, capfd, tmp_path):
    folder = self.written(tmp_path / 'run')
    (folder / 'checkpoints' / '5').rmdir()
    said = refused(capfd, f'--workdir={folder}', main=evaluate.main)
    assert 'holds no checkpoint' in said
