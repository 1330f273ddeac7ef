"""The loop: one for every experiment, never forked.

  restore -> evaluate step 0 if asked -> dispatch -> log -> evaluate -> after_eval
  -> finite? -> save -> signals; at the end figures and result.json

The host waits for the device where it must, and nowhere else: for the dispatch before
the last one (so that two are in flight and a signal is never far), for metrics one
dispatch after they were made, for evaluations, and for checksums at a save.
"""

import contextlib
import sys
from typing import Any, Mapping, NamedTuple, Sequence

import jax

from dlx.config_json import config_to_json
from dlx.errors import ConfigError, NonFiniteError
from dlx.experiment import Config, Experiment, declared
from dlx.run import evaluation, feed, initial, origin, processes, sharding
from dlx.run.at import At, NotFinite
from dlx.run.cadence import due, next_boundary
from dlx.run.checkpoint.checksums import fingerprint
from dlx.run.dispatch import make_dispatch
from dlx.run.nonfinite import diagnose, look
from dlx.run.records import agreement, sources
from dlx.run.records.environment import environment
from dlx.run.records.workdir import Asked, Workdir, move_aside
from dlx.run.rehearsal import rehearse
from dlx.run.session import Session, opened
from dlx.run.timing import Clock
from dlx.state import TrainState
from dlx.train import curves, early_stopping
from dlx.train.steps import never_reached


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    status: 'finished' (result.json is written), 'stopped' (at `stop_at`) or
      'interrupted' (by a signal; the state is saved).
    step: steps done.
    metrics: last figures by "split/name".
    state: on the devices; None where the run had been finished before.
  """

  status: str
  step: int
  metrics: Mapping[str, Any]
  state: TrainState | None


def fit(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  name: str | None = None,
  module: str | None = None,
  data_dir=None,
  mesh: str | None = None,
  stop_at: int | None = None,
  fresh: bool = False,
  extend: bool = False,
  data_changed: bool = False,
  init_from=None,
  init_skip: str | Sequence[str] = (),
  debug: bool = False,
  argv: Sequence[str] = (),
  trace_steps: tuple[int, int] | None = None,
  terminal: bool | None = None,
) -> Outcome:
  """Trains, or goes on training, in a workdir.

  Killed at any moment and called again with the same arguments, it ends bit for bit
  where an undisturbed run ends, on one device of the same kind with the same versions,
  flags and number of CPU threads.

  Args:
    experiment: what `build(config)` gave.
    config: written to config.json; what may change on the same workdir, and what is
      refused there, says dlx/run/records/agreement.py.
    workdir: path; may be an object store.
    name: of the experiment, or the path of its file; None: by `module`.
    module: name of the module of the experiment; None: that of the Config.
    data_dir: see `Dataset.load`.
    mesh: e.g. 'data=4,tensor=2'; None: all devices along data.
    stop_at: leave after this step, saved, as if killed there.
    fresh: what is in the workdir is moved aside first, to WORKDIR.before_N.
    extend: go on to a larger `num_steps` also where steps depend on it (a schedule):
      from here on they are those of a run of that length.
    data_changed: go on with other data than those the run began with.
    init_from: WORKDIR or WORKDIR:STEP of a run whose parameters this one begins with;
      STEP is latest, best or a number. See dlx/run/initial.py. Once this run has saved,
      that one is not read again.
    init_skip: patterns of parameters that are left new, see `initial.source`.
    debug: look for a NaN in every operation of every step, one by one: names the line,
      also of what is masked later. Slow; the same bits.
    argv: the command, for the record.
    trace_steps: (first, last) step of a profiler trace, into WORKDIR/trace.
    terminal: a progress bar or plain lines; None: as stderr is.

  Raises:
    ConfigError: a value, the data, the mesh or the workdir cannot be.
    NonFiniteError: a NaN or inf; the last good checkpoint is kept.
  """
  if stop_at is not None and stop_at < 1:
    raise ConfigError(f'--stop_at={stop_at} is not allowed: must be at least 1.')
  source = initial.source(init_from, init_skip)
  as_json, module = config_to_json(config), module or type(config).__module__
  asked = Asked(
    name=name or origin.name_of(module),
    config=as_json,
    defaults=origin.defaults(config),
    sources=sources.of(module),
    free=agreement.FREE + ('eval_every_steps',) * (experiment.after_eval is None),
    data_changed=data_changed,
    init_from=source and source.asked(),
  )
  if source is not None:
    source.refuse(workdir)
  if fresh:
    _make_fresh(workdir)
  folder = Workdir(workdir, asked)
  if folder.finished is not None:
    if jax.process_index() == 0:
      print(f'The run in {folder.path} is finished.', file=sys.stderr)
    step, metrics = folder.finished['step'], folder.finished['metrics']
    return Outcome('finished', step, metrics, None)
  _check_x64(config)
  if debug and jax.process_count() > 1:
    raise ConfigError('--debug is not allowed with several processes: start one.')
  dispatch = make_dispatch(experiment, sharding.make_mesh(mesh))
  if folder.shorter is not None and not extend:
    shorter, path = folder.shorter, folder.path
    origin.check_longer(experiment, config, module, shorter, path, argv)
  if source is not None and not folder.resumed:
    source.check(dispatch.state)
  clock = Clock()
  with clock.span('compile'):
    rehearsed = rehearse(experiment, config, dispatch)
  with clock.span('read'):
    data = feed.load(experiment, data_dir, dispatch.mesh)
  seen = curves.declared(dispatch.window) if config.curves else {}
  said = {**seen, **experiment.metrics}
  record = {
    'experiment': asked.name,
    'config': as_json,
    'defaults': asked.defaults,
    'data': feed.origins(experiment, data),
    'argv': list(argv),
    'mesh': mesh,
    **declared(experiment._replace(metrics=said)),
    **environment(),
    'calls': {},  # Of each program, by the shape of its batches; see calls.py.
  }
  with contextlib.ExitStack() as held:
    held.callback(folder.close)
    folder.begin(record)
    session = held.enter_context(
      opened(
        experiment,
        config,
        folder,
        dispatch,
        data,
        clock,
        rehearsed,
        source=source,
        trace_steps=trace_steps,
        terminal=terminal,
      )
    )
    if config.ema_decay is not None:
      if told := never_reached(config.ema_decay, config.num_steps):
        session.records.note(told)
    try:
      return _turn(session, stop_at or config.num_steps, debug)
    except NonFiniteError:
      raise
    except (NotFinite, FloatingPointError) as error:  # The second by JAX_DEBUG_NANS.
      session.programs.abandon()
      raise diagnose(error, session) from error


def _turn(run: Session, stop_at: int, debug: bool) -> Outcome:
  """The loop itself, from where the session starts."""
  config, evals = run.config, run.experiment.evals
  programs, records, trace = run.programs, run.records, run.trace
  last, end = config.num_steps, min(config.num_steps, stop_at)
  at = _evaluate_if_due(run, run.start)
  _save_if_due(run, at)
  while at.step < end and not at.stopped:
    if run.stop.agreed():
      return _leave(run, at, 'interrupted')
    trace.update(at.step, programs.drain)
    most, cuts = programs.most_steps, trace.cuts
    to = next_boundary(at.step, most, end, config, evals, cuts)
    if debug:
      look(run, at)
      to = at.step + 1
    with _no_hidden_transfer():
      at = programs.advance(at, to)
      records.write_window()  # Closed before this dispatch: its sums are there.
    if due(at.step, config.log_every_steps, last):
      records.close_window(at.step, at.window)
      at = at._replace(window=programs.zeros())
    at = _evaluate_if_due(run, at)
    _save_if_due(run, at)
    if at.step < last and due(at.step, config.figure_every_steps, last):
      _settle(run)
      run.draw(at)
  trace.stop(programs.drain)
  if at.stopped or (at.step == last and not run.evaluations.due(at)):
    return _finish(run, at)
  return _leave(run, at, 'interrupted' if run.stop.here else 'stopped')


def _make_fresh(workdir):
  """Moves a workdir aside, by process 0."""
  moved: list[str | None] = []
  processes.first_does(lambda: moved.append(move_aside(workdir)), f'move {workdir}')
  if moved and moved[0]:
    print(f'What was in {workdir} is in {moved[0]} now.', file=sys.stderr)


def _no_hidden_transfer():
  """Makes a copy between host and device an error, unless it is an explicit one.

  jax.device_put and jax.device_get are explicit; a NumPy array given to a program, a
  jnp.zeros and a float() of an array are not, and each may stop the device for the
  host. On a CPU only copies to the device are refused: there NumPy reads an array of
  the device's where it lies. JAX_TRANSFER_GUARD has the last word.
  """
  asked = getattr(jax.config, 'jax_transfer_guard', None)
  # There every operation is sent alone, with its numbers.
  if jax.config.jax_disable_jit or jax.config.jax_debug_nans:
    asked = asked or 'allow'
  return jax.transfer_guard(asked or 'disallow')


def _settle(run: Session):
  """Waits for what is in flight, and writes the log window that was closed before."""
  run.programs.drain()
  run.records.write_window()


def _evaluate_if_due(run: Session, at: At) -> At:
  """The state with the evaluations of this step folded in, and their lines written."""
  names = run.evaluations.due(at)
  if not names:
    return at
  if run.evaluations.new(names) and at.step:
    _save(run, at)  # What goes wrong in it, memory perhaps, loses no step.
  _settle(run)
  try:
    found = run.evaluations.run(names, at.state, lambda: run.stop.here)
  except evaluation.Interrupted:
    return at  # The loop leaves next; the state is saved as it was before.
  run.records.evaluated(at.step, {name: x.figures for name, x in found.items()})
  return run.evaluations.fold_in(at, found)


def _save_if_due(run: Session, at: At):
  if run.checkpoints.due(at):
    _save(run, at)


def _save(run: Session, at: At):
  """Lines first, so that no figure of a saved step can be lost; then the state."""
  if run.checkpoints.has(at):
    return
  _settle(run)
  with run.clock.span('save'):
    run.records.flush()
    run.checkpoints.save(at, run.records.latest)


def _leave(run: Session, at: At, status: str) -> Outcome:
  if at.step:
    _save(run, at)
  run.checkpoints.wait()
  return Outcome(status, at.step, dict(run.records.latest), at.state)


def _finish(run: Session, at: At) -> Outcome:
  """Figures and result.json, last: without it the run counts as unfinished."""
  _save(run, at)
  metrics = dict(run.records.latest)
  if at.stopped:  # after_eval may have put other parameters back: evaluate those.
    run.records.stopped(at.step, run.config.early_stop_metric)
    found = run.evaluations.run(list(run.experiment.evals), at.state)
    metrics |= run.records.metrics({name: x.figures for name, x in found.items()})
  _settle(run)
  run.draw(at)
  with run.clock.span('save'):
    run.checkpoints.wait()
  weights = _weights(run, at)
  run.records.finish(
    at.step,
    metrics,
    stopped_early=at.stopped,
    weights=weights,
    origins=feed.origins(run.experiment, run.data),
    seconds=run.clock.seconds(),
    parameters=sum(x.size for x in jax.tree.leaves(at.state.params)),
    flops_per_step=run.programs.flops_per_step,
    fingerprint=fingerprint(at.state),
  )
  return Outcome('finished', at.step, metrics, at.state)


def _weights(run: Session, at: At) -> str:
  """Which weights the run ends with, and which it has kept besides; told, too."""
  config = run.config
  told = early_stopping.held(at.state, config.early_stop_metric)
  if config.best_metric is not None:
    best = run.checkpoints.best()
    kept = f'none, since {config.best_metric} was never finite'
    told += f'; kept as the best: {kept if best is None else f"checkpoint {best}"}'
  if config.best_metric is not None or config.early_stop_metric is not None:
    run.records.note(f'The weights are {told}.')
  return told


def _check_x64(config: Config):
  if 'float64' in (config.compute_dtype, config.param_dtype) and not jax.config.read(
    'jax_enable_x64'
  ):  # type: ignore[attr-defined]
    raise ConfigError(
      '--config.compute_dtype=float64 needs 64-bit mode: launchers turn '
      'it on; elsewhere set JAX_ENABLE_X64=1.'
    )
