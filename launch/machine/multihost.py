"""Several processes that train one run together: start, failure, end.

  --multihost                     TPU pods, Slurm and Open MPI: found by JAX
  --multihost --coordinator=HOST:PORT --num_processes=4 --process_id=0    anywhere else

Exit statuses, besides those of the launcher: a process that fails tells the others why,
and all leave with its status. 43: a process was lost (killed, frozen, cut off); nothing
is to be mended, the same command goes on from the newest checkpoint. 134 (SIGABRT): JAX
itself ended the process; its log says why.
"""

import os
import pathlib
import re
import sys
import traceback
from typing import Any, Mapping

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line
from launch.machine.peers import LOST, Peers, last_word, say

_VARIABLES = {
  'coordinator': 'DLX_COORDINATOR',
  'num_processes': 'DLX_NUM_PROCESSES',
  'process_id': 'DLX_PROCESS_ID',
}
# What collectives and barriers say when a peer is gone, on CPU, GPU and TPU.
_OF_PEERS = re.compile(
  r'gloo|nccl|coordination service|coordinationservice|socket closed|'
  r'connection (closed|reset|refused)|barrier|heartbeat|unavailable:|deadline_exceeded',
  re.IGNORECASE,
)


def define(values: flags.FlagValues):
  """The flags of a launcher that may be one of several processes."""
  flags.DEFINE_boolean(
    'multihost',
    False,
    'This is one of several processes of one run: on TPU pods, Slurm and Open MPI they '
    'find each other, elsewhere by the next three flags.',
    values,
    module_name='launcher',
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT at which process 0 listens. Default: $DLX_COORDINATOR.',
    values,
    module_name='launcher',
  )
  flags.DEFINE_integer(
    'num_processes',
    None,
    'Processes of the run. Default: $DLX_NUM_PROCESSES.',
    flag_values=values,
    module_name='launcher',
  )
  flags.DEFINE_integer(
    'process_id',
    None,
    'Number of this process, from 0. Default: $DLX_PROCESS_ID.',
    flag_values=values,
    module_name='launcher',
  )
  # A machine that swaps or a Python thread that is not let run is silent for seconds;
  # a frozen host is rare and costs this once. JAX's own default is 100.
  flags.DEFINE_integer(
    'heartbeat_seconds',
    60,
    'Seconds of silence after which a process counts as lost, and the others leave.',
    lower_bound=2,
    flag_values=values,
    module_name='launcher',
  )
  flags.DEFINE_integer(
    'connect_seconds',
    300,
    'Seconds within which all processes must have started.',
    lower_bound=1,
    flag_values=values,
    module_name='launcher',
  )


def addresses(
  values: Any, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
  """Arguments of jax.distributed.initialize; {}: let JAX find them; None: one process.

  Raises:
    ConfigError: flags or variables that are impossible, or some of them missing.
  """
  given = {name: getattr(values, name) for name in _VARIABLES}
  if not values.multihost:
    if set_ := [f'--{name}' for name, value in given.items() if value is not None]:
      raise ConfigError(f'{", ".join(set_)} without --multihost: add it.')
    return None
  source = {name: f'--{name}={value}' for name, value in given.items()}
  for name, variable in _VARIABLES.items():
    if given[name] is None and variable in environ:
      given[name], source[name] = environ[variable], f'{variable}={environ[variable]}'
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return {}
  if missing:
    remedy = ', '.join(f'--{name} (or {_VARIABLES[name]})' for name in missing)
    raise ConfigError(
      f'--multihost: {remedy} missing: give all of {", ".join(_VARIABLES)}, or none on '
      'a TPU pod, Slurm or Open MPI.'
    )
  for name in ('num_processes', 'process_id'):
    if not re.fullmatch('[0-9]+', str(given[name])):
      raise ConfigError(f'{source[name]} is not allowed: must be a number from 0 on.')
    given[name] = int(given[name])
  match = re.fullmatch(r'(\[[^\]]+\]|[^:\s]+):([0-9]{1,5})', given['coordinator'])
  if not match or not 0 < int(match[2]) < 2**16:
    raise ConfigError(
      f'{source["coordinator"]} is not allowed: must be HOST:PORT, e.g. 10.0.0.1:1234.'
    )
  count, process = given['num_processes'], given['process_id']
  if not 0 <= process < count:
    raise ConfigError(
      f'{source["process_id"]} with {source["num_processes"]} is not allowed: must be '
      f'0 to {max(0, count - 1)}, each once.'
    )
  return {
    'coordinator_address': given['coordinator'],
    'num_processes': count,
    'process_id': process,
  }


class Session:
  """Around the whole run of a process; see `start`."""

  def __init__(self, peers: Peers | None):
    self._peers = peers

  def __enter__(self):
    return self

  def __exit__(self, kind, error, trace):
    if self._peers is None:
      return
    if error is None:
      try:
        self._peers.end()
        return
      except Exception as late:
        error = late
    if not isinstance(error, (SystemExit, command_line.Leave)):
      # Not by the interpreter's way out, where JAX waits for all processes.
      _fail(self._peers, error)


def start(values: Any, workdir: str) -> Session:
  """Finds the other processes where there are any; call it before any device is used.

  Inside the session that comes back a failure of one process ends all of them, each
  with one line that says why.

  Args:
    values: parsed flags, those of `define` among them.
    workdir: of the run, for what is said of its checkpoints.

  Raises:
    ConfigError: impossible flags, or no cluster found. Where not all processes come,
      this one leaves with status 43.
  """
  found = addresses(values)
  if found is None:
    return Session(None)
  import jax

  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  silence = values.heartbeat_seconds

  def nobody(reason: str = ''):
    where = found.get('coordinator_address', 'the coordinator of this cluster')
    say(
      f'--multihost: the processes did not all meet at {where} within '
      f'{values.connect_seconds} s{reason}: check that all were started, with the same '
      'address, and that its port is open.'
    )
    os._exit(LOST)

  try:
    # Where not all come, JAX aborts the process with a stack trace.
    with last_word(nobody):
      jax.distributed.initialize(
        **found,
        initialization_timeout=values.connect_seconds,
        # Ours comes first and says more; this is for a process that holds up Python.
        heartbeat_timeout_seconds=2 * silence + 10,
      )
  except ValueError:
    raise ConfigError(
      '--multihost found no TPU pod, Slurm or Open MPI: give --coordinator=HOST:PORT, '
      '--num_processes and --process_id.'
    ) from None
  except RuntimeError as error:
    nobody(f' ({" ".join(str(error).split())[:300]})')
  from jax._src.distributed import global_state  # No public name; Orbax does the same.

  if jax.process_count() == 1:
    return Session(None)
  peers = Peers(
    global_state.client,
    jax.process_index(),
    jax.process_count(),
    global_state.coordinator_address or '',
    silence=silence,
    advice=lambda: newest_checkpoint(workdir),
  )
  peers.start()
  return Session(peers)


def newest_checkpoint(workdir: str) -> str:
  """What is left of a run, as a sentence."""
  folder = pathlib.Path(workdir) / 'checkpoints'
  steps = [int(p.name) for p in folder.glob('*') if p.name.isdecimal()]
  if steps:
    return (
      f'The newest checkpoint in {workdir} is that of step {max(steps)}; the same '
      'command goes on from it.'
    )
  if '://' in workdir:
    return f'The checkpoints in {workdir} are whole; the same command goes on.'
  return f'There is no checkpoint in {workdir} yet; the same command starts again.'


def _fail(peers: Peers, error: BaseException):
  """Says why this process fails, here and to the others, and ends it."""
  if is_of_peers(error):
    # A peer that failed has said so before it went; one that was killed has not.
    status, text = peers.failure() or (
      LOST,
      f'a process is gone ({" ".join(str(error).split())[:200]}).',
    )
    peers.fail(status, text)
    peers.leave(status, text)
  status = _told(error)
  name = '' if isinstance(error, ConfigError) else f'{type(error).__name__}: '
  peers.fail(status, f'{name}{str(error)[:500]}')
  peers.leave(status, None)


def is_of_peers(error: BaseException) -> bool:
  """Whether an error, or one that it came from, says that another process is gone."""
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, RuntimeError) and _OF_PEERS.search(str(seen)):
      return True
    seen = seen.__cause__ or seen.__context__
  return False


def _told(error: BaseException) -> int:
  """Prints an error as the launcher would, and returns its exit status."""
  if isinstance(error, KeyboardInterrupt):
    return 130

  @command_line.one_line_errors
  def again(argv):
    raise error

  try:
    return again([])
  except Exception:
    traceback.print_exception(error)
    sys.stderr.flush()
    return 1
