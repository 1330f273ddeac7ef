"""The trials of a search, in a file of the workdir or a database of all workers.

Each trial has an index, its place in the search. A worker takes the lowest index that
no living or finished trial has, so that one whose worker died is taken again, by the
choices that it had. Of two workers that take the same index at once the one whose trial
has the lower number keeps it. Nothing that is stored is ever executed.
"""

import contextlib
import sys
import threading
import time
from typing import Any, Callable, Iterator, Mapping, NamedTuple, TypeVar
import warnings

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DataError, ProgrammingError, SQLAlchemyError

from dlx.errors import StorageError
from dlx.study.search.address import hidden
from dlx.study.search.sampling import INDEX

_T = TypeVar('_T')
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
WAIT_SECONDS = 600  # For a database that went away.


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Without what Optuna says of its experimental parts, and of what it does."""
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    yield


class Taken(NamedTuple):
  """A trial that this process trains.

  Attributes:
    index: its place in the search.
    trial: Optuna's.
    params: its choices.
  """

  index: int
  trial: optuna.Trial
  params: Mapping[str, Any]


class Chooser(NamedTuple):
  """How the choices of a trial are made.

  Attributes:
    sampler: index -> the sampler of that trial.
    choose: trial -> its choices, by its sampler where it has none yet.
    whole: choices -> whether they are all that a trial needs.
  """

  sampler: Callable[[int], optuna.samplers.BaseSampler]
  choose: Callable[[optuna.Trial], Mapping[str, Any]]
  whole: Callable[[Mapping[str, Any]], bool]


class Store:
  """The trials of one search, for one process."""

  def __init__(
    self,
    study: optuna.Study,
    *,
    told: str,
    stale_seconds: float | None,
    wait_seconds: float = WAIT_SECONDS,
    dispose: Callable[[], Any] | None = None,
  ):
    """Args: see opening.py, which makes one."""
    # That of the study, which caches what a database says of finished trials.
    self._storage: Any = study._storage
    self.study, self._told = study, told
    self.stale_seconds, self._wait = stale_seconds, wait_seconds
    self._dispose = dispose
    self._study_id = self.call(
      lambda: self._storage.get_study_id_from_name(study.study_name)
    )
    self._mine: set[int] = set()  # Ids of trials that this process trains.
    self._seen: set[int] = set()
    self._away_until = 0.0

  def close(self):
    """Closes connections to a database; trials of this process stay as they are."""
    self._storage.remove_session()
    if self._dispose is not None:
      self._dispose()

  @property
  def is_shared(self) -> bool:
    return self.stale_seconds is not None

  def call(self, function: Callable[[], _T]) -> _T:
    """Calls what uses the storage; waits for a database that went away.

    Raises:
      StorageError: it stays away, or refuses.
    """
    end, said = time.monotonic() + self._wait, False
    while True:
      try:
        with quiet():
          found = function()
      except (StorageInternalError, SQLAlchemyError) as error:
        cause = cause_of(error)
        if not _may_pass(cause) or time.monotonic() > end:
          why = one_line(cause)
          raise StorageError(
            f'{self._told}: {why}: what is finished is kept; mend that and give the '
            'same command, which goes on.'
          ) from None
        if not said:
          said = True
          _say(
            f'{self._told} does not answer ({one_line(cause)}): trying again for '
            f'{self._wait / 60:g} minutes; nothing is lost.'
          )
        self._nobody_was_heard()
        time.sleep(min(5.0, self._wait / 10))
        continue
      if said:
        _say(f'{self._told} answers again.')
      return found

  def _nobody_was_heard(self):
    """A database was away: the living have time to be heard again."""
    self._away_until = time.monotonic() + 2 * (self.stale_seconds or 0)

  def trials(self) -> list[FrozenTrial]:
    """All trials that count, by index: the living and the finished."""
    found = self.call(lambda: self.study.get_trials(deepcopy=False))
    alive = (TrialState.RUNNING, *FINISHED)
    first: dict[int, FrozenTrial] = {}
    for trial in sorted(found, key=lambda t: t.number):
      index = trial.user_attrs.get(INDEX)
      if isinstance(index, int) and trial.state in alive:
        first.setdefault(index, trial)
    return [first[index] for index in sorted(first)]

  def agree(self, key: str, value: Any) -> Any:
    """Keeps a value for all workers; the one that was kept first."""
    there = self.call(lambda: self.study.user_attrs).get(key)
    if there is None:
      self.call(lambda: self.study.set_user_attr(key, value))
    return value if there is None else there

  def begun(self, by: Chooser) -> list[Taken]:
    """Trials that a former process of this workdir left; none where others share it."""
    if self.is_shared:
      return []
    return [
      self._take(t.user_attrs[INDEX], t._trial_id, by)
      for t in self.trials()
      if t.state == TrialState.RUNNING and t._trial_id not in self._mine
    ]

  def next(self, most: int | None, by: Chooser) -> Taken | None:
    """Takes the lowest index that is free.

    Args:
      most: indices are below it; None: without end.
      by: its choices; one that died keeps those that it had.

    Returns:
      None: no index is free.
    """
    while True:
      if self.is_shared:
        self._bury()
      owned = {t.user_attrs[INDEX] for t in self.trials()}
      index = next(i for i in range(len(owned) + 1) if i not in owned)
      if most is not None and index >= most:
        return None
      template = self._template(index, by)
      trial_id = self.call(
        lambda t=template: self._storage.create_new_trial(
          self._study_id, template_trial=t
        )
      )
      self._mine.add(trial_id)
      self.beat()
      if any(t._trial_id == trial_id for t in self.trials()):
        return self._take(index, trial_id, by)
      self._drop(trial_id)  # Another worker was faster.

  def _template(self, index: int, by: Chooser) -> FrozenTrial:
    """A trial to create: with the choices of the one that died at this index."""
    dead = [
      t
      for t in self.call(lambda: self.study.get_trials(deepcopy=False))
      if t.user_attrs.get(INDEX) == index and by.whole(t.params)
    ]
    return optuna.create_trial(
      state=TrialState.RUNNING,
      params=dict(dead[0].params) if dead else {},
      distributions=dict(dead[0].distributions) if dead else {},
      user_attrs={INDEX: index},
    )

  def _take(self, index: int, trial_id: int, by: Chooser) -> Taken:
    self._mine.add(trial_id)
    with quiet():
      sampler = by.sampler(index)

    def new() -> optuna.Trial:
      # A study of its own: one keeps the trials that it saw first for its sampler.
      study = optuna.Study(
        self.study.study_name, self._storage, sampler, self.study.pruner
      )
      return optuna.Trial(study, trial_id)

    trial = self.call(new)
    # At once, before the next is chosen, which depends on it.
    return Taken(index, trial, self.call(lambda: by.choose(trial)))

  def _bury(self):
    """Fails the trials whose worker was not heard of for `stale_seconds`."""
    if time.monotonic() < self._away_until:
      return
    for trial in self.trials():
      of = trial._trial_id
      if trial.state == TrialState.RUNNING and of not in self._mine | self._seen:
        # One whose worker died before its first beat would never be stale.
        self._seen.add(of)
        self.call(lambda of=of: self._storage.record_heartbeat(of))
    stale = self.call(lambda: self._storage._get_stale_trial_ids(self._study_id))
    for trial_id in set(stale) - self._mine:
      self._drop(trial_id)

  def _drop(self, trial_id: int):
    """Its index is free again."""
    self._mine.discard(trial_id)
    with contextlib.suppress(UpdateFinishedTrialError):
      self.call(lambda: self._storage.set_trial_state_values(trial_id, TrialState.FAIL))

  def tell(
    self, trial: optuna.Trial, value: float | None, attributes: Mapping[str, Any]
  ) -> bool:
    """Ends a trial.

    Args:
      trial: of this process.
      value: what is searched for; None: it was pruned, or diverged.
      attributes: written with it.

    Returns:
      Whether it counts: False where another worker has taken it, for whom this one
      seemed dead.
    """
    of = trial._trial_id
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    values = None if value is None else [value]
    try:
      for name, x in attributes.items():
        self.call(lambda n=name, x=x: self._storage.set_trial_user_attr(of, n, x))
      self.call(lambda: self._storage.set_trial_state_values(of, state, values))
    except UpdateFinishedTrialError:  # Or it was told, and the answer was lost.
      there = self.call(lambda: self._storage.get_trial(of)).state
      if there == TrialState.FAIL:
        self._mine.discard(of)
        return False
    self._mine.discard(of)
    return True

  def beat(self):
    """Tells that this process is alive."""
    if self.is_shared:
      for trial_id in list(self._mine):
        self.call(lambda t=trial_id: self._storage.record_heartbeat(t))

  @contextlib.contextmanager
  def beating(self) -> Iterator[None]:
    """Tells so from a thread until the end, whatever this one does."""
    if self.stale_seconds is None:
      yield
      return
    done, every = threading.Event(), self.stale_seconds / 4

    def loop():
      while not done.wait(every):
        for trial_id in list(self._mine):
          try:
            self._storage.record_heartbeat(trial_id)
          except Exception:  # The main thread says what is wrong with a database.
            self._nobody_was_heard()

    thread = threading.Thread(target=loop, daemon=True, name='dlx-heartbeat')
    thread.start()
    try:
      yield
    finally:
      done.set()
      thread.join(timeout=10)


def cause_of(error: BaseException) -> BaseException:
  """What SQLAlchemy said, where Optuna has wrapped it."""
  if isinstance(error, StorageInternalError) and error.__cause__ is not None:
    return error.__cause__
  return error


def _may_pass(error: BaseException) -> bool:
  """Whether a database that says so may answer later: not where the query is wrong."""
  lasting = isinstance(error, (DataError, ProgrammingError))
  return not lasting and 'disk is full' not in str(error)


def one_line(error: BaseException) -> str:
  """What is wrong, in one line without a password or a query."""
  told = getattr(error, 'orig', None) or error
  lines = [line.strip() for line in str(told).splitlines() if line.strip()]
  return hidden(lines[0] if lines else type(told).__name__)[:200].rstrip('.')


def _say(text: str):
  print(text, file=sys.stderr, flush=True)
