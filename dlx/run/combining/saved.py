"""Averaged weights as a run of their own, which every command opens."""

from typing import Any, Mapping

from dlx.errors import ConfigError
from dlx.run import processes
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.combining.classifiers import Member
from dlx.run.opened import VOCABULARY
from dlx.run.records.json_files import read_json, write_bytes, write_json
from dlx.run.records.workdir import absolute
from dlx.run.reopen import Opened
from dlx.state import TrainState


def check_free(workdir: Any, flag: str):
  """Raises ConfigError where something lies in a folder that is to be written."""
  path = absolute(workdir)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ConfigError(f'{flag}{workdir} is there already: give a new folder.')


def save(
  opened: Opened,
  member: Member,
  state: TrainState,
  told: Mapping[str, Any],
  workdir: Any,
):
  """Writes a workdir with one checkpoint; all processes call it.

  Experiment, config and the files of a fork are those of the run; `combined` in its
  config.json says what the weights are of. The optimiser's state is that of the run.

  Args:
    opened: the run.
    member: the same.
    state: what is saved, at the step of the run.
    told: what was averaged, as JSON.
    workdir: a new folder.
  """
  path, of = absolute(workdir), absolute(member.workdir)
  saved = Checkpointer(path / 'checkpoints', keep=1)
  saved.save(int(state.step), state, opened.dispatch.zeros(), {})
  saved.close()

  def write():
    sources = of / 'source'
    for file in sources.iterdir() if sources.exists() else ():
      (path / 'source').mkdir(parents=True, exist_ok=True)
      write_bytes(path / 'source' / file.name, file.read_bytes())
    if (of / VOCABULARY).exists():
      write_bytes(path / VOCABULARY, (of / VOCABULARY).read_bytes())
    record = read_json(of / 'config.json')
    record.pop('together', None)  # Its checkpoints are its own.
    write_json(path / 'config.json', {**record, 'combined': dict(told)})

  processes.first_does(write, f'write {path}')
