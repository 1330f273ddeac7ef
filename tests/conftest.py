"""What every test runs under; set before jax is imported, inherited by subprocesses."""

import ast
import atexit
import functools
import gc
import os
import pathlib
import shutil
import signal
import tempfile
import threading

from absl import flags
import pytest

from tests import leaks, turns

ACCELERATORS = ('/dev/nvidiactl', '/dev/accel0', '/dev/vfio/0')

# A library that is built on request and changes the bits; its own tests turn it on.
os.environ.setdefault('DLX_ONEDNN', 'off')

if not any(pathlib.Path(path).exists() for path in ACCELERATORS):
  # With libtpu installed, JAX would look for a TPU at every start, and two processes at
  # once can abort on its lock file.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Several test processes share one accelerator.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
os.environ['JAX_NUMPY_RANK_PROMOTION'] = 'raise'
os.environ.setdefault('MPLBACKEND', 'agg')
# Spinning OpenMP threads of torch would starve the other test processes.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# Many tests build the same program anew, in one process or several: one cache for the
# whole session, empty at its start, took 43 % off the CPU time of the contract's tests
# (110 s to 63 s; two cores, jax 0.10.2). Workers of xdist inherit the variable.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  cache = tempfile.mkdtemp(prefix='dlx-tests-')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = cache
  os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
  atexit.register(shutil.rmtree, cache, ignore_errors=True)

# Most time of the suite is compilation: the first takes half of it, the others half of
# the rest. XLA:CPU's emitters of before MLIR compile a small program in 21 ms in place
# of 38 of CPU, and one of 40 operations, in one part, in 31 in place of 80 (jax 0.11.2;
# 26 of 43 with 0.10.2). With DLX_TESTS_OPTIMISED programs are optimised as those of
# users are, and by the fixture `optimised` for one file, but for the emitters.
CHEAP = (
  '--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters',
  '--xla_cpu_parallel_codegen_split_count=1',
)
if 'DLX_TESTS_OPTIMISED' not in os.environ:
  os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  set_ = os.environ.get('XLA_FLAGS', '').split()
  os.environ['XLA_FLAGS'] = ' '.join([*set_, *(x for x in CHEAP if x not in set_)])

# A shell that starts tests in the background lets them ignore Ctrl-C, and so all that
# they start.
if (
  threading.current_thread() is threading.main_thread()
  and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
):
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Grain hands absl flags on to its worker processes and refuses flags not yet parsed.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

ROOT = pathlib.Path(__file__).parent
# Folders and files of which all tests may differ by version of Python, jax or Orbax and
# are cheap; a test elsewhere is marked where it stands.
VERSIONS = (
  'dlx/config_json_test.py',  # Dataclasses and their annotations.
  'dlx/data/formats/pickles_test.py',
  'dlx/run/checkpoint/checkpointer_test.py',
  'house',  # Imports of every module.
  'launch/flags',
)


# Kernels in simulators and compilers for other chips: minutes. Where $DLX_TURN is a
# number, a file in four of them is marked `kernels`, which the older jax runs, and one
# whose code changed; all of them run on the newest.
SIMULATED = ('_tpu_test.py', '_gpu_test.py')
SIMULATED_TURNS = 4


def _has_its_turn(path: pathlib.Path) -> bool:
  from tests import changes  # After the settings above.

  if turns.TURN is None or not path.name.endswith(SIMULATED):
    return True
  files = sorted(
    p.name for p in path.parent.glob('*_test.py') if p.name.endswith(SIMULATED)
  )
  number = files.index(path.name)
  has_it = turns.has_it(number, SIMULATED_TURNS, turns.TURN)
  return has_it or changes.closure_here(path)


def _asks_for_torch(node: ast.AST) -> bool:
  """Whether it imports torch, or skips where torch is not installed."""
  for part in ast.walk(node):
    if isinstance(part, ast.Import) and any(n.name == 'torch' for n in part.names):
      return True
    if isinstance(part, ast.Call) and part.args:
      called = getattr(part.func, 'attr', getattr(part.func, 'id', None))
      if called == 'importorskip' and getattr(part.args[0], 'value', None) == 'torch':
        return True
  return False


@functools.cache
def compare_with_torch(path: pathlib.Path) -> tuple[str, ...]:
  """Beginnings of the names of the tests of a file that compare with torch."""
  tree = ast.parse(path.read_text(encoding='utf-8'))
  functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
  inside = {id(part) for function in functions for part in ast.walk(function)}
  alone = [part for part in ast.walk(tree) if id(part) not in inside]
  if any(_asks_for_torch(n) for n in alone if isinstance(n, (ast.Import, ast.Call))):
    return ('',)  # The whole file.
  found = {function.name for function in functions if _asks_for_torch(function)}
  used = lambda f: {getattr(n, 'attr', getattr(n, 'id', '')) for n in ast.walk(f)}
  while more := {f.name for f in functions if used(f) & found} - found:
    found |= more  # Those that call one that asks.
  return tuple(name for name in sorted(found) if name.startswith('test'))


@functools.cache
def marks(path: pathlib.Path) -> tuple[str, ...]:
  """Names of the marks of all tests in a file."""
  name = path.relative_to(ROOT).as_posix()
  versions = any(name == v or name.startswith(f'{v}/') for v in VERSIONS)
  kernels = name.startswith('kernels/') and _has_its_turn(path)
  return ('kernels',) * kernels + ('versions',) * versions


@pytest.fixture(autouse=True)
def data_folder_of_its_own():
  """Flags that one test parsed name no folder of data sets to the next."""
  from dlx.data.formats import files

  yield
  files.look_in(None)


@pytest.fixture(autouse=True)
def process_of_its_own():
  """What a test, or a launcher that it calls, sets in the process is put back."""
  before = leaks.saved()
  yield
  leaks.restore(before)


@pytest.fixture(scope='module')
def optimised():
  """Programs of this file are optimised in any case: what is asked is of them."""
  import jax

  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
  """With `-n` a file's tests run on one worker: they share what it made once.

  A worker that crashes ends the session, with the name of its test. Another in its
  place would take up its file again, crash and now and then wait for ever (xdist 3.8).
  """
  option = config.option
  if getattr(option, 'numprocesses', None):
    if option.dist in ('no', 'load'):
      option.dist = 'loadfile'
    if option.maxworkerrestart is None:
      option.maxworkerrestart = '0'


def pytest_collection_finish():
  """What was imported so far is not looked at by each full collection of garbage: of
  tests that trace much it took a tenth of the time."""
  gc.collect()
  gc.freeze()


def pytest_collection_modifyitems(config, items):
  """A new test joins by what it is; in CI one of unchanged code waits for its turn."""
  from tests import changes  # After the settings above.

  left_out = set(changes.left_out_here())
  is_out = lambda item: item.path.relative_to(changes.REPO).as_posix() in left_out
  if out := [item for item in items if is_out(item)]:
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if not is_out(item)]
  for item in items:
    for mark in marks(item.path):
      item.add_marker(getattr(pytest.mark, mark))
    for mark in item.iter_markers('seldom'):
      if changes.waits(*mark.args, item.path, turns.TURN):
        item.add_marker(pytest.mark.slow)
    if item.name.startswith(compare_with_torch(item.path)):
      item.add_marker(pytest.mark.reference)
