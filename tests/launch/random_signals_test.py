"""A run that is asked to leave at any moment, by any signal, leaves and goes on.

Real processes, 20 moments a signal from the start of Python to the last line; some ten
minutes on two cores.
"""

import random
import signal
import time

import pytest

from dlx import leaving
from tests.launch.kill_test import Session, fingerprint, lines

MOMENTS = 20


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
  """(workdir of a run that nothing disturbed, cache of programs, its seconds)."""
  folder = tmp_path_factory.mktemp('straight')
  for name in ('cold', 'run'):  # The second finds its programs compiled.
    start = time.monotonic()
    session = Session(folder / name, False, folder / 'cache')
    assert session.wait() == 0, (folder / f'{name}.log').read_text()[-3000:]
  return folder / 'run', folder / 'cache', time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize(
  'number', leaving.SIGNALS, ids=lambda n: signal.Signals(n).name
)
def test_stopped_at_any_moment_it_goes_on_with_equal_bits(number, straight, tmp_path):
  run, cache, seconds = straight
  if signal.getsignal(number) == signal.SIG_IGN:  # Under nohup, which children keep.
    signal.signal(number, signal.SIG_DFL)
  rng = random.Random()  # Any moment must do: it is told where one did not.
  found = {}
  for i in range(MOMENTS):
    moment = rng.uniform(0, 1.05 * seconds)
    workdir, log = tmp_path / str(i), tmp_path / f'{i}.log'
    session = Session(workdir, False, cache)
    time.sleep(moment)
    status = session.kill(number)
    told = f'{moment:.2f} s of {seconds:.2f}: {log.read_text()[-2000:]}'
    if status == -number:  # Python itself had not come to the first handler.
      assert log.read_text() == '' and not workdir.exists(), told
    else:
      assert status in (0, leaving.STATUS), f'status {status} at {told}'
    found[status] = found.get(status, 0) + 1
    assert Session(workdir, False, cache).wait() == 0, told
    assert fingerprint(workdir) == fingerprint(run), told
    assert lines(workdir) == lines(run), told
  print({signal.Signals(number).name: found})
  assert found.get(leaving.STATUS), found
