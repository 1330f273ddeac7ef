"""Tests for dlx/leaving.py and dlx/run/stop_request.py: who is asked leaves with 42."""

import os
import pty
import signal
import subprocess
import sys

import pytest

from dlx import leaving
from dlx.run.stop_request import StopRequest

EARLY = """
import signal, sys, time
from dlx import leaving
for number in leaving.SIGNALS:  # What ignores one, as nohup does, hands that on.
  signal.signal(number, signal.SIG_DFL)
if sys.argv[1] == 'ignored':
  signal.signal(signal.SIGHUP, signal.SIG_IGN)
leaving.listen()
print('ready', flush=True)
time.sleep(1 if sys.argv[1] == 'ignored' else 60)
"""


def send(number, word=''):
  command = [sys.executable, '-c', EARLY, word]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(number)
    return process.wait(timeout=30)


@pytest.mark.parametrize('number', leaving.SIGNALS)
def test_before_the_loop_it_leaves_at_once(number):
  assert send(number) == 42


LATE = """
import os, signal, sys
from dlx import leaving

class Late:
  def __del__(self, kill=os.kill, pid=os.getpid(), number=int(sys.argv[1])):
    kill(pid, number)

leaving.listen()
late = Late()
"""


@pytest.mark.parametrize('number', leaving.SIGNALS)
def test_after_all_is_done_it_changes_nothing(number):
  """Python ends: handlers are dropped, then what modules hold is deleted."""
  done = subprocess.run([sys.executable, '-c', LATE, str(int(number))])
  assert done.returncode == 0


def test_what_is_ignored_stays_so():
  assert send(signal.SIGHUP, 'ignored') == 0  # nohup.


@pytest.mark.parametrize('number', leaving.SIGNALS)
def test_in_the_loop_it_asks(number):
  if signal.getsignal(number) == signal.SIG_IGN:  # These tests run under nohup.
    signal.signal(number, signal.SIG_DFL)
  before = signal.getsignal(number)
  with StopRequest() as stop:
    assert not stop.agreed()
    os.kill(os.getpid(), number)
    assert stop.here and stop.agreed()
  assert signal.getsignal(number) is before


def test_the_first_says_at_once_that_it_was_heard(capfd):
  with StopRequest():
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR1)
  said = 'SIGTERM: saving at the end of what is under way.\n'  # Once; no escapes.
  assert capfd.readouterr().err == said
  with StopRequest():
    os.kill(os.getpid(), signal.SIGINT)
  assert (
    'SIGINT: saving at the end of what is under way; again to leave without.\n'
    == (capfd.readouterr().err)
  )


def test_a_second_interrupt_gives_the_terminal_its_cursor_back():
  code = """
import os, signal
from dlx import leaving
from dlx.run.stop_request import StopRequest
leaving.listen()
with StopRequest():
  os.kill(os.getpid(), signal.SIGINT)
  os.kill(os.getpid(), signal.SIGINT)
"""
  ours, theirs = pty.openpty()
  done = subprocess.run([sys.executable, '-c', code], stderr=theirs, timeout=60)
  os.write(theirs, b'END')  # Else a read of nothing would wait for ever.
  said = os.read(ours, 10000).decode().removesuffix('END')
  os.close(ours)
  os.close(theirs)
  assert done.returncode == 130
  assert said.endswith(
    '\r\x1b[K\x1b[?25hLeft at once: the same command goes on from the newest '
    'checkpoint.\r\n'
  )


def test_a_second_interrupt_of_a_notebook_ends_the_call_and_not_the_notebook():
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt), StopRequest():
      os.kill(os.getpid(), signal.SIGINT)
      os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)


def test_a_handler_of_others_stays():
  heard = []
  before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
  try:
    leaving.listen()
    with StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGUSR1)
      assert heard == [1] and not stop.here
  finally:
    signal.signal(signal.SIGUSR1, before)
    for number in leaving.SIGNALS:
      if signal.getsignal(number) is leaving.at_once:
        usual = (
          signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
        signal.signal(number, usual)
