"""Signs of life between the processes of a run, so that none waits for a dead one.

JAX's own service ends a process that lost a peer by SIGABRT, with a stack trace of C++,
and does not always: on jax 0.10.2 the survivor of a frozen coordinator waited for as
long as it was looked at (60 s, at a heartbeat of 8 s; 0.11.2: aborted after 10 s). So
each process also says itself that it lives, in the key-value store of that service, and
the first to see a silence or a failure says so in one line and leaves.

  dlx/alive/K   a count, from process K
  dlx/failed/K  why process K leaves, from itself
  dlx/told      from process 0: a count, and what it has seen; the others read this
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Callable

LOST = 43  # Exit status: a peer is gone, the newest checkpoint is whole.
_ALIVE, _FAILED, _TOLD = 'dlx/alive/', 'dlx/failed/', 'dlx/told'
_FOREVER_MS = 24 * 3600 * 1000


class Peers:
  """Two threads: one says that this process lives and asks about the others, which may
  hang; one looks at the clock."""

  def __init__(
    self,
    client: Any,
    process: int,
    count: int,
    coordinator: str,
    *,
    silence: float,
    advice: Callable[[], str],
    now: Callable[[], float] = time.monotonic,
    leave: Callable[[int], None] = os._exit,
  ):
    """Starts nothing.

    Args:
      client: of JAX's distributed runtime.
      process: number of this one.
      count: of processes.
      coordinator: HOST:PORT.
      silence: seconds without a sign after which a peer counts as lost.
      advice: what to do next, the end of a message.
      now, leave: for tests.
    """
    self._client, self._process, self._count = client, process, count
    self._coordinator, self._silence, self._advice = coordinator, silence, advice
    self._now, self._leave = now, leave
    self._every = min(1.0, silence / 8)
    self._seen: dict[int, tuple[str, float]] = {}  # Last sign of a peer, and when.
    self._stopped = threading.Event()
    self._leaving = threading.Lock()
    self._threads: list[threading.Thread] = []
    self._clock, self._mark = threading.Lock(), now()
    self._handler: Any = None

  def start(self):
    """Starts the threads; from here on the process may end at any time."""
    self._mark = self._now()
    others = range(self._count) if self._process == 0 else range(1)
    self._seen = {k: ('', self._now()) for k in others if k != self._process}
    for body in (self._talk, self._look):
      self._threads.append(threading.Thread(target=body, daemon=True))
      self._threads[-1].start()
    if self._process:
      self._handler = _on_abort(self._aborted)

  def end(self):
    """All processes are done: waits for the last, then stops looking."""
    self._client.wait_at_barrier('dlx/end', _FOREVER_MS)
    self._stopped.set()
    for thread in self._threads:
      thread.join(2 * self._every)
    if self._handler is not None:
      _on_abort(None)

  def fail(self, status: int, text: str):
    """Tells the others that this process leaves, and why; returns once they know.

    Args:
      status: theirs will be the same.
      text: one line.
    """
    record = json.dumps({'status': status, 'text': text})
    set_key = self._client.key_value_set
    # The coordinator may be gone, and the call then never return.
    _within(2.0, lambda: set_key(f'{_FAILED}{self._process}', record, True))
    time.sleep(3 * self._every + 0.5)

  def failure(self) -> tuple[int, str] | None:
    """(status, one line) of a peer that has said why it leaves."""
    found = _within(2.0, lambda: self._client.key_value_dir_get(_FAILED))
    return self._pick(dict(found or ()))

  def leave(self, status: int, text: str | None):
    """Ends this process, now: what else it does may wait for a peer for ever.

    Args:
      status: exit status.
      text: why, one line; None: it was said.
    """
    if not self._leaving.acquire(blocking=False):
      time.sleep(60)  # Another thread is at it.
    if text is not None:
      # A disk may hang as well.
      advice = _within(2.0, self._advice) if status == LOST else 'Its log says more.'
      who = f'process {self._process} of {self._count} leaves'
      say(f'{who}: {text.rstrip(".")}. {advice or ""}')
    for stream in (sys.stdout, sys.stderr):
      _within(1.0, stream.flush)  # Nobody may be reading.
    self._leave(status)

  def _talk(self):
    beat = 0
    while not self._stopped.wait(self._every):
      self._awake()
      beat += 1
      try:
        self._round(beat)
      except Exception:  # The clock says when that has lasted too long.
        continue

  def _round(self, beat: int):
    """One exchange: what this process tells, and what it hears."""
    client = self._client
    if self._process:
      client.key_value_set(f'{_ALIVE}{self._process}', str(beat), True)
      told = json.loads(client.blocking_key_value_get(_TOLD, _FOREVER_MS))
      self._heard(0, str(told['beat']))
      failed, lost = told['failed'], told['lost']
    else:
      for key, value in client.key_value_dir_get(_ALIVE):
        self._heard(int(key.rpartition('/')[2]), value)
      failed, lost = dict(client.key_value_dir_get(_FAILED)), self._silent()
      record = {'beat': beat, 'failed': failed, 'lost': lost}
      client.key_value_set(_TOLD, json.dumps(record), True)
    if self._stopped.is_set():
      return
    found = self._pick(failed)
    if lost and not found:
      found = LOST, self._of_silent(lost)
    if found:
      if not self._process:
        time.sleep(2 * self._every)  # The others hear it before the service ends.
      self.leave(*found)

  def _look(self):
    """Leaves where nothing is heard and `_talk` hangs: process 0 is frozen or gone."""
    while not self._stopped.wait(self._every):
      self._glance()

  def _glance(self):
    self._awake()
    silent = [k for k, (_, at) in self._seen.items() if self._late(at, 2)]
    if silent and not self._stopped.is_set():
      self.leave(LOST, self._of_silent(silent))

  def _awake(self):
    """What this process slept through (Ctrl-Z, a debugger) counts for nobody."""
    with self._clock:
      slept, self._mark = self._now() - self._mark, self._now()
      if slept > self._silence / 2:
        self._seen = {k: (sign, self._mark) for k, (sign, _) in self._seen.items()}

  def _heard(self, process: int, sign: str):
    if sign != self._seen.get(process, ('', 0))[0]:
      self._seen[process] = sign, self._now()

  def _late(self, at: float, rounds: int = 0) -> bool:
    return self._now() - at > self._silence + rounds * self._every

  def _silent(self) -> list[int]:
    return [k for k, (_, at) in self._seen.items() if self._late(at)]

  def _of_silent(self, silent: list[int]) -> str:
    names = ', '.join(map(str, sorted(silent)))
    return (
      f'no sign of life from process {names} for {self._silence:g} s (killed, frozen '
      'or cut off).'
    )

  def _pick(self, failed: dict[str, str]) -> tuple[int, str] | None:
    """The failure to pass on; a peer's own fault before that it lost a third."""
    records = [
      (int(key.rpartition('/')[2]), json.loads(value)) for key, value in failed.items()
    ]
    others = [(k, r) for k, r in records if k != self._process]
    if not others:
      return None
    k, record = min(others, key=lambda one: (one[1]['status'] == LOST, one[0]))
    return record['status'], f'process {k} left: {record["text"]}'

  def _aborted(self):
    """JAX ends this process; where the coordinator is gone, its last word is ours."""
    host, _, port = self._coordinator.rpartition(':')
    try:
      socket.create_connection((host.strip('[]'), int(port)), timeout=1).close()
    except OSError:
      self.leave(LOST, 'process 0, the coordinator, is gone (killed or cut off).')


def say(text: str):
  """A line on stderr that no thread's output divides and no buffer keeps."""
  os.write(2, f'error: {" ".join(text.split())}\n'.encode(errors='replace'))


def _within(seconds: float, call: Callable[[], Any]) -> Any:
  """What a call gives; None where it raises or takes longer."""
  found = []

  def body():
    try:
      found.append(call())
    except Exception:
      pass

  thread = threading.Thread(target=body, daemon=True)
  thread.start()
  thread.join(seconds)
  return found[0] if found else None


@contextlib.contextmanager
def last_word(call: Callable[[], None]):
  """Runs `call` where C or C++ aborts the process inside."""
  handler = _on_abort(call)
  try:
    yield handler
  finally:
    _on_abort(None)


def _on_abort(call: Callable[[], None] | None) -> Any:
  """Runs `call` when C or C++ aborts the process, in the thread that does.

  signal.signal is too late: the interpreter runs its handlers after the one of C has
  returned, and then abort() has ended the process.

  Returns:
    What has to live as long as the handler.
  """
  libc = ctypes.CDLL(None)
  if call is None:
    libc.signal(signal.SIGABRT, None)  # The default.
    return None
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: call())
  libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), None
  libc.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
  return handler
