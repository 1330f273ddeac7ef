"""The README's code for Python runs, and leaves what the command leaves."""

import asyncio
import contextlib
import io
import json
import os
import pathlib
import re
import sys
import types

import numpy as np
import pytest

from dlx import beside, runs
from dlx.run import origin
from experiments.transformers import char_gpt
from launch import evaluate, train

README = pathlib.Path(__file__).parents[2] / 'README.md'


def test_leaves_the_files_of_the_command_and_is_evaluated(tmp_path, monkeypatch, capfd):
  monkeypatch.chdir(tmp_path)
  (code,) = re.findall(r'```python\n(.*?)```', README.read_text(), re.S)
  found = {'__name__': 'readme'}

  async def cell():  # As in a notebook: a loop of events runs, stderr is no file.
    exec(compile(code, 'README.md', 'exec'), found)

  with contextlib.redirect_stderr(io.StringIO()) as said:
    asyncio.run(cell())
  assert 'step 200/200  test/loss' in said.getvalue()
  first = json.loads((tmp_path / 'runs' / 'first' / 'config.json').read_text())
  assert (first['experiment'], first['config']['lr']) == ('softmax_regression', 0.1)
  outcome = found['outcome']
  assert outcome.status == 'finished'
  # A guess has 0.1, with a deviation of 0.016 over 360 images.
  assert outcome.metrics['test/accuracy'] > 0.5

  mine = tmp_path / 'runs' / 'mine'
  names = ('config', 'result', 'metrics', 'report', 'figures', 'checkpoints', 'source')
  assert set(names) <= {path.stem for path in mine.iterdir()}
  assert '<h1>softmax_regression</h1>' in (mine / 'report.html').read_text()

  # The command finds its own run there, and nothing left to do.
  before = (mine / 'result.json').read_bytes()
  args = ['--exp=softmax_regression', '--config.num_steps=200', '--compile_cache=off']
  assert train.main(['train', *args, '--workdir=runs/mine']) == 0
  assert 'is finished' in capfd.readouterr().err
  assert (mine / 'result.json').read_bytes() == before

  assert evaluate.main(['evaluate', '--workdir=runs/mine', '--compile_cache=off']) == 0
  told = json.loads(capfd.readouterr().out.splitlines()[-1])['metrics']
  assert told['test/accuracy'] == pytest.approx(outcome.metrics['test/accuracy'])
  probs = found['predict'].call(found['state'], {'image': found['images']})
  np.testing.assert_allclose(probs['probabilities'].sum(1), 1, rtol=1e-5)
  opened = found['run'].predict(image=found['images'])
  np.testing.assert_allclose(opened, probs['probabilities'], rtol=1e-5)


def test_fields_that_follow_from_a_size_are_those_of_the_command(monkeypatch):
  seen, loop = [], types.ModuleType('dlx.run.loop')
  outcome = types.SimpleNamespace(status='stopped')
  vars(loop)['fit'] = lambda experiment, config, workdir: seen.append(config) or outcome
  monkeypatch.setitem(sys.modules, 'dlx.run.loop', loop)
  config = char_gpt.Config()
  assert config.width is None
  assert runs.fit(None, config, 'W') is outcome  # type: ignore[arg-type]
  assert seen == [config.resolved()] and seen[0].width is not None


@pytest.mark.parametrize('name', ['__main__', 'experiments.mine'])
def test_a_file_of_the_users_is_named_by_its_path(name, tmp_path, monkeypatch):
  """Also where it lies in a package that is called experiments."""
  module = types.ModuleType(name)
  module.__file__ = str(tmp_path / 'experiments' / 'mine.py')
  monkeypatch.setitem(sys.modules, name, module)
  assert origin.name_of(name) == module.__file__


def test_names_of_ours_and_of_a_notebook(monkeypatch):
  module = types.ModuleType('experiments.vision.cnn')
  module.__file__ = os.path.join(beside.ROOT, 'experiments', 'vision', 'cnn.py')
  monkeypatch.setitem(sys.modules, module.__name__, module)
  assert origin.name_of(module.__name__) == 'cnn'
  monkeypatch.setitem(sys.modules, '__main__', types.ModuleType('__main__'))
  assert origin.name_of('__main__') == 'experiment'
