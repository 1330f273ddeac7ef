"""Tests for dlx/run/checkpoint/quiet.py: what it drops, what it lets through, when."""

import logging
import pathlib
import subprocess
import sys
import warnings

from absl.testing import absltest, parameterized

from dlx.run.checkpoint import quiet

ROOT = pathlib.Path(__file__).parents[4]
SET_UP = """
import asyncio, gc, logging, sys, warnings
from dlx.run.checkpoint import quiet
async def mine():
  pass
code = compile('async def write(): pass', '/site-packages/orbax/io.py', 'exec')
exec(code)
async def left():
  asyncio.get_running_loop().create_future().set_exception(OSError(28, "disk is full"))
  gc.collect()
  await asyncio.sleep(0)
"""
ORPHANS = {
  'a future': 'asyncio.run(left())',
  'a coroutine': 'write(); gc.collect()',
  'its message': (
    'logging.getLogger("asyncio").error("in orbax/x.py", exc_info=OSError(28, "full"))'
  ),
}
OTHERS = {
  'a log of asyncio': 'logging.getLogger("asyncio").error("slow", exc_info=OSError(5))',
  'no exception': 'logging.getLogger("asyncio").error("orbax is slow")',
  'a warning': 'warnings.warn("precision was lost", RuntimeWarning)',
  'a coroutine of the user': 'mine(); gc.collect()',
}
SAID = (
  'slow',
  'OSError: 5',
  'orbax is slow',
  'precision was lost',
  "coroutine 'mine' was never awaited",
)
# A coroutine of the user's before, while a Checkpointer is open, and after.
AROUND = """
import jax.numpy as jnp, tempfile
from etils import epath
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.state import create
import jax
def asked(when):
  print(when, file=sys.stderr)
  mine(); gc.collect()
warnings.simplefilter('always')
asked('before')
c = Checkpointer(epath.Path(tempfile.mkdtemp()) / 'checkpoints')
asked('opened')
state = create({'w': jnp.ones(4)}, (), jax.random.key(0))
c.save(1, state, {}, {})
asked('saving')
c.wait()
asked('saved')
c.close()
asked('closed')
assert sys.unraisablehook is sys.__unraisablehook__
"""

# Threads that drop what raises at its end while hooks come and go. An audit hook in
# Python lets another thread run between Python's look at the hook and its call.
THREADS = """
import threading
sys.addaudithook(lambda event, arguments: None)
sys.setswitchinterval(1e-6)
class Raises:
  def __del__(self):
    raise RuntimeError('Event loop is closed')
def drop():
  while going:
    Raises()
going = [True]
sys.unraisablehook = lambda found: None
threads = [threading.Thread(target=drop) for _ in range(4)]
for thread in threads:
  thread.start()
for _ in range(20_000):
  with quiet.orbax():
    pass
going.clear()
"""


def quietly(code):
  return f'with quiet.orbax():\n  {code}'


def stderr(*code):
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(code)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stderr


def installed():
  return (
    sys.unraisablehook,
    warnings._warn_unawaited_coroutine,
    list(warnings.filters),
    [list(logging.getLogger(name).filters) for name in ('absl', 'asyncio')],
  )


class QuietTest(parameterized.TestCase):
  @parameterized.parameters(*ORPHANS)
  def test_of_failures_that_are_raised_as_well_nothing_is_printed(self, name):
    self.assertNotEmpty(stderr(SET_UP, ORPHANS[name]))
    self.assertEmpty(stderr(SET_UP, quietly(ORPHANS[name])))

  @parameterized.parameters(*ORPHANS)
  def test_afterwards_it_is_printed(self, name):
    self.assertNotEmpty(stderr(SET_UP, quietly('pass'), ORPHANS[name]))

  def test_all_else_is_printed(self):
    said = stderr(SET_UP, *map(quietly, OTHERS.values()))
    for word in SAID:
      self.assertIn(word, said)

  def test_a_coroutine_of_the_user_warns_at_any_time(self):
    said = stderr(SET_UP, AROUND)
    self.assertEqual(said.count("coroutine 'mine' was never awaited"), 5, said)

  def test_nothing_stays_changed(self):
    before = installed()
    with quiet.orbax():
      self.assertNotEqual(installed(), before)
    self.assertEqual(installed(), before)

  def test_a_hook_that_a_thread_is_about_to_call_is_not_freed(self):
    self.assertEmpty(stderr(SET_UP, THREADS))

  def test_after_a_failure_only_what_names_orbax_stays_silent(self):
    failed = """
for _ in range(2):
  try:
    with quiet.orbax():
      raise OSError('full')
  except OSError:
    pass
"""
    late = """
error = logging.getLogger("asyncio").error
told = "exception was never retrieved: 3.orbax-checkpoint-tmp"
error(told, exc_info=OSError(28))
write(); gc.collect()
"""
    self.assertNotEmpty(stderr(SET_UP, late))
    self.assertEmpty(stderr(SET_UP, failed, late))
    said = stderr(SET_UP, failed, *OTHERS.values(), ORPHANS['a future'])
    for word in (*SAID, 'disk is full'):
      self.assertIn(word, said)

  def test_two_that_overlap(self):
    before = installed()
    first, second = quiet.orbax(), quiet.orbax()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    self.assertLen(logging.getLogger('asyncio').filters, len(before[3][1]) + 1)
    second.__exit__(None, None, None)
    # The hook that the second had found is the first's, which only passes on now.
    self.assertEqual(installed()[2:], before[2:])
    sys.unraisablehook, warnings._warn_unawaited_coroutine = before[:2]

  def test_what_a_failure_holds_ends_before_the_noise_is_let_through(self):
    code = """
def save():
  waiting = write()
  raise OSError('full')
try:
  with quiet.orbax():
    save()
except OSError as e:
  error = e
del error
gc.collect()
"""
    self.assertEmpty(stderr(SET_UP, code))


if __name__ == '__main__':
  absltest.main()
