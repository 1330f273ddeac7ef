"""Tests for dlx/leaving.py and dlx/run/stop_request.py: who is asked leaves with 42."""

import os
import signal
import subprocess
import sys

import pytest

from dlx import leaving
from dlx.run.stop_request import StopRequest

EARLY = """
import signal, sys, time
from dlx import leaving
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


def test_what_is_ignored_stays_so():
  assert send(signal.SIGHUP, 'ignored') == 0  # nohup.


@pytest.mark.parametrize('number', leaving.SIGNALS)
def test_in_the_loop_it_asks(number):
  before = signal.getsignal(number)
  with StopRequest() as stop:
    assert not stop.agreed()
    os.kill(os.getpid(), number)
    assert stop.here and stop.agreed()
  assert signal.getsignal(number) is before


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
