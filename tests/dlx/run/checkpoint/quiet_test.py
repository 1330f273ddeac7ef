"""Tests for dlx/run/checkpoint/quiet.py: what it drops, and what it lets through."""

import subprocess
import sys

from absl.testing import absltest, parameterized

SET_UP = """
import asyncio, gc, logging, sys, warnings
async def write():
  pass
async def left():
  asyncio.get_running_loop().create_future().set_exception(OSError(28, "disk is full"))
  gc.collect()
  await asyncio.sleep(0)
"""
QUIET = 'from dlx.training import quiet; quiet.orbax(); quiet.orbax()\n'
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
}


def stderr(*code):
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(code)], capture_output=True, text=True, check=True
  )
  return done.stderr


class QuietTest(parameterized.TestCase):
  @parameterized.parameters(*ORPHANS)
  def test_of_failures_that_are_raised_as_well_nothing_is_printed(self, name):
    self.assertNotEmpty(stderr(SET_UP, ORPHANS[name]))
    self.assertEmpty(stderr(SET_UP, QUIET, ORPHANS[name]))

  def test_all_else_is_printed(self):
    said = stderr(SET_UP, QUIET, *OTHERS.values())
    for word in ('slow', 'OSError: 5', 'orbax is slow', 'precision was lost'):
      self.assertIn(word, said)


if __name__ == '__main__':
  absltest.main()
