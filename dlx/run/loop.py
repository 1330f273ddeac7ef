"""The loop: one for every experiment, never forked.

  restore -> evaluate step 0 if asked -> dispatch -> log -> evaluate -> after_eval
  -> finite? -> save -> signals; at the end figures and result.json

The host waits for the device where it must, and nowhere else: for the dispatch before
the last one (so that two are in flight and a signal is never far), for metrics one
dispatch after they were made, for evaluations, and for checksums at a save.
"""

import sys
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from dlx.config_json import config_to_json
from dlx.data.dataset import Dataset, Loaded
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run import drawing, sharding
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.dispatch import make_dispatch
from dlx.run.evaluation import Evaluator, one_batch, place
from dlx.run.records.environment import environment
from dlx.run.records.reporter import plain, reported
from dlx.run.records.workdir import Workdir, absolute
from dlx.run.session import Outcome, Run
from dlx.run.timing import Clock
from dlx.state import TrainState


def fit(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  name: str = 'experiment',
  data_dir=None,
  mesh: str | None = None,
  stop_at: int | None = None,
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
    config: written to config.json; another one is refused on the same workdir.
    workdir: path; may be an object store.
    name: of the experiment, or the path of its file.
    data_dir: see `Dataset.load`.
    mesh: e.g. 'data=4,tensor=2'; None: all devices along data.
    stop_at: leave after this step, saved, as if killed there.
    argv: the command, for the record.
    trace_steps: (first, last) step of a profiler trace, into WORKDIR/trace.
    terminal: a progress bar or plain lines; None: as stderr is.

  Raises:
    ConfigError: a value, the data, the mesh or the workdir cannot be.
    NonFiniteError: a NaN or inf; the last good checkpoint is kept.
  """
  if stop_at is not None and stop_at < 1:
    raise ConfigError(f'--stop_at={stop_at} is not allowed: must be at least 1.')
  as_json = config_to_json(config)
  folder = Workdir(workdir, name=name, config=as_json)
  if folder.finished is not None:
    if jax.process_index() == 0:
      print(f'The run in {folder.path} is finished.', file=sys.stderr)
    return Outcome(
      'finished', folder.finished['step'], folder.finished['metrics'], None
    )
  _check_x64(config)
  device_mesh = sharding.make_mesh(mesh)
  dispatch = make_dispatch(experiment, device_mesh)
  _check_metrics(config, experiment)
  clock = Clock()
  with clock.span('input'):
    loaded = _load(experiment, data_dir)
  folder.begin(
    {
      'experiment': name,
      'config': as_json,
      'defaults': config_to_json(type(config)()),
      'argv': list(argv),
      'mesh': mesh,
      **environment(),
    }
  )
  try:
    with Run(
      experiment, config, folder, device_mesh, dispatch, loaded, clock, terminal
    ) as run:
      return run.go(stop_at, trace_steps)
  finally:
    folder.close()


def evaluate(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  step: int | str = 'latest',
  data_dir=None,
  mesh: str | None = None,
) -> dict[str, float]:
  """Metrics by "split/name" of a checkpoint of a workdir; writes nothing there.

  Args:
    step: 'latest', 'best' (by `config.best_metric`) or a number.

  Raises:
    ConfigError: no such checkpoint; see `fit`.
  """
  opened = _open(experiment, config, workdir, step, data_dir, mesh)
  metrics: dict[str, float] = {}
  for split in experiment.evals:
    members = opened.state.stop.shape
    metrics |= {
      f'{split}/{key}': plain(value)
      for key, value in opened.summary(split).items()
      if reported(value, members)
    }
  return metrics


def draw(
  experiment: Experiment,
  config: Config,
  workdir,
  name: str,
  *,
  step: int | str = 'latest',
  data_dir=None,
  mesh: str | None = None,
) -> Any:
  """A figure of a checkpoint, as drawn: a text, a matplotlib Figure or an image.

  Args:
    name: one of `experiment.figures`.
    step: see `evaluate`.

  Raises:
    ConfigError: no such figure or checkpoint.
  """
  if name not in experiment.figures:
    raise ConfigError(
      f'--show={name} is not allowed: must be one of '
      f'{", ".join(experiment.figures) or "none, as nothing is drawn"}.'
    )
  opened = _open(experiment, config, workdir, step, data_dir, mesh)
  figure = experiment.figures[name]
  tree = drawing.compute(
    name,
    figure,
    opened.state,
    int(opened.state.step),
    batch=lambda data: one_batch(opened.placed[id(data)], opened.mesh, 0),
    summary=opened.summary,
  )
  return figure.draw(tree)


class _Opened(NamedTuple):
  """A checkpoint on the devices, and the data of evaluations and figures."""

  experiment: Experiment
  state: TrainState
  like: TrainState
  placed: Mapping[int, Any]
  mesh: Any

  def summary(self, split: str) -> Mapping[str, np.ndarray]:
    evaluation = self.experiment.evals[split]
    evaluator = Evaluator(
      evaluation, self.placed[id(evaluation.data)], self.mesh, self.like
    )
    return evaluator.run(self.state, lambda: False).figures


def _open(experiment, config, workdir, step, data_dir, mesh) -> _Opened:
  device_mesh = sharding.make_mesh(mesh)
  dispatch = make_dispatch(experiment, device_mesh)
  found, checkpointer = _pick(absolute(workdir), config, step)
  placed = {
    key: place(dataset, data, device_mesh)
    for key, (dataset, data) in _load(experiment, data_dir, train=False).items()
  }
  restored = checkpointer.restore(dispatch.state, dispatch.window, found)
  checkpointer.close()
  assert restored is not None
  return _Opened(experiment, restored.state, dispatch.state, placed, device_mesh)


def _pick(workdir, config: Config, step: int | str) -> tuple[int, Checkpointer]:
  checkpointer = Checkpointer(
    workdir / 'checkpoints',
    keep=config.keep_checkpoints,
    read_only=True,
    best_metric=config.best_metric,
    best_mode=config.best_mode,
  )
  steps = checkpointer.steps()
  if not steps:
    raise ConfigError(f'--workdir={workdir} holds no checkpoint: train there first.')
  if step == 'best':
    found = checkpointer.best()
    if found is None:
      raise ConfigError(
        f'--step=best: the run in {workdir} kept no best checkpoint: '
        'train with --config.best_metric, or use --step=latest.'
      )
    return found, checkpointer
  return steps[-1] if step == 'latest' else int(step), checkpointer


def _check_x64(config: Config):
  if 'float64' in (config.compute_dtype, config.param_dtype) and not jax.config.read(
    'jax_enable_x64'
  ):  # type: ignore[attr-defined]
    raise ConfigError(
      '--config.compute_dtype=float64 needs 64-bit mode: launchers turn '
      'it on; elsewhere set JAX_ENABLE_X64=1.'
    )


def _check_metrics(config: Config, experiment: Experiment):
  """Raises ConfigError for a metric in the config that no evaluation reports."""
  wanted = {
    field: getattr(config, field)
    for field in ('best_metric', 'early_stop_metric')
    if getattr(config, field) is not None
  }
  if not wanted:
    return
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  known = set()
  for split, e in experiment.evals.items():
    sums = jax.eval_shape(e.step, state, e.data.shapes[0])
    found = jax.eval_shape(e.summarize, sums)
    shown = {k for k, v in found.items() if reported(v, state.stop.shape)}
    known |= {f'{split}/{k}' for k in shown}
  for field, metric in wanted.items():
    if metric not in known:
      raise ConfigError(
        f'--config.{field}={metric} is not allowed: must be one of '
        f'{", ".join(sorted(known)) or "none, as nothing is evaluated"}.'
      )


def _load(
  experiment: Experiment, data_dir, train: bool = True
) -> dict[int, tuple[Dataset, Loaded]]:
  """Reads every data set once: {id: (dataset, loaded)}."""
  wanted: list[Dataset] = [experiment.train_data] if train else []
  wanted += [e.data for e in experiment.evals.values()]
  wanted += [f.data for f in experiment.figures.values() if f.data is not None]
  out = {}
  for dataset in wanted:
    if id(dataset) not in out:
      out[id(dataset)] = dataset, dataset.load(data_dir)
  return out
