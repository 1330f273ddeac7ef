"""Searches the best config of an experiment: asks, trains and tells, until it is done.

  WORKDIR/trials.journal  what was chosen and found; with `storage` a database has it
  WORKDIR/sweep.json      the search, its trials, table and best config, for the page
  WORKDIR/best.flags      the best config, for --flagfile
  WORKDIR/hparams/TRIAL/  TensorBoard's row of a trial: the fields that are swept
  WORKDIR/runs/, together/, table.md, figures/*.png

Killed at any moment and called again it goes on: it chooses the trials that it would
have chosen, and trains none twice. Trials are counted from 0.
"""

import contextlib
import sys
from typing import Any, Sequence

import jax

from dlx.errors import ConfigError
from dlx.run.records.workdir import absolute, move_aside
from dlx.study.engine import lock
from dlx.study.search import checks, opening
from dlx.study.search.address import Address, without_password
from dlx.study.search.declaration import Sweep
from dlx.study.search.outcome import Outcome, Told
from dlx.study.search.sampling import Plan
from dlx.study.search.worker import Worker


def run(
  sweep: Sweep,
  workdir: Any,
  *,
  address: Address | None = None,
  name: str | None = None,
  stale_seconds: int = 120,
  data_dir: Any = None,
  mesh: str | None = None,
  fresh: bool = False,
  argv: Sequence[str] = (),
  terminal: bool | None = None,
) -> Outcome:
  """Searches, or goes on.

  Args:
    sweep: what is searched.
    workdir: path of a local folder.
    address: of the database that several workers share; None: a file in the workdir.
    name: of the search in the database; None: follows from what is searched.
    stale_seconds: a worker not heard of for so long is dead, and its trials are free.
    data_dir, mesh, argv, terminal: see `dlx.run.loop.fit`.
    fresh: what is in the workdir is moved aside first.

  Raises:
    ConfigError: what cannot be searched, before anything is compiled or written; a
      workdir or a database with another search; several processes of one program.
    StorageError: the database stays away.
  """
  if jax.process_count() > 1:
    raise ConfigError(
      'A sweep is not allowed with several processes of one program: start a worker a '
      'machine, with --storage.'
    )
  plan = Plan(sweep.search, sweep.space, sweep.seed)
  most = checks.most_trials(sweep, plan)
  first = checks.check(sweep, plan, most)
  said = checks.declared(sweep, first, mesh)
  highest = checks.is_highest(sweep, said)
  workdir = absolute(workdir)
  if fresh and address is not None:
    raise ConfigError(
      '--fresh is not allowed with --storage: the trials of the database stay; give '
      'another --study.'
    )
  if fresh and (moved := move_aside(workdir)):
    print(f'What was in {workdir} is in {moved} now.', file=sys.stderr)
  workdir.mkdir(parents=True, exist_ok=True)
  direction = 'maximize' if highest else 'minimize'
  argv = without_password(argv)
  options = {'data_dir': data_dir, 'mesh': mesh, 'argv': argv, 'terminal': terminal}
  agreed = checks.agreement(sweep)
  with contextlib.ExitStack() as held:
    if address is None:
      held.enter_context(lock(workdir))
      store = opening.local(workdir, direction)
    else:
      store = opening.shared(
        address,
        name or checks.digest_name(agreed),
        direction,
        stale_seconds=stale_seconds,
      )
    held.callback(store.close)
    checks.agree(store, agreed)
    told = Told(sweep, store, workdir, highest, said, argv)
    held.enter_context(store.beating())
    worker = Worker(sweep, plan, most, store, workdir, told, options)
    finished = worker.work()
    return told.write(finished)
