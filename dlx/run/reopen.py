"""A checkpoint of a run, opened again: its state, its metrics and its figures."""

import re
from typing import Any, Mapping, NamedTuple

from etils import epath
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run import drawing, feed, processes, sharding
from dlx.run.checkpoint import files
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.checkpoint.pick import pick
from dlx.run.dispatch import Dispatch, make_dispatch
from dlx.run.evaluation import Evaluations
from dlx.run.records import history
from dlx.run.records.json_files import read_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.run.records.reporter import as_floats, reported
from dlx.run.records.workdir import absolute
from dlx.run.rehearsal import Rehearsed, rehearse
from dlx.run.timing import Clock
from dlx.state import TrainState, is_key, leaves_by_path
from dlx.train import members


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
    ConfigError: no such checkpoint; see `loop.fit`.
  """
  return opened(
    experiment, config, workdir, step=step, data_dir=data_dir, mesh=mesh
  ).metrics()


def state(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  step: int | str = 'latest',
  mesh: str | None = None,
) -> TrainState:
  """The state of a checkpoint, on the devices: what `experiment.functions` are given.

  Args:
    step: see `evaluate`.

  Raises:
    ConfigError: no such checkpoint.
  """
  dispatch = make_dispatch(experiment, sharding.make_mesh(mesh))
  return _restored(experiment, dispatch, workdir, config, step)


def unplaced(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  step: int | str = 'latest',
  without: tuple[str, ...] = (),
) -> TrainState:
  """The state of a checkpoint on the default device; traces no train step.

  Args:
    step: see `evaluate`.
    without: parts that are not read, and are () in what is returned.

  Raises:
    ConfigError: no such checkpoint, or a corrupt one.
  """
  wanted = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  wanted = wanted._replace(**dict.fromkeys(without, ()))
  place = _place(workdir)
  if place.members is not None:
    wanted = members.joined(wanted, place.members)
  named = {f'state/{name}': x for name, x in leaves_by_path(wanted).items()}
  saved = _saved(place.folder, config)
  which = lambda: pick(saved, workdir, step, config.best_metric)
  found = files.follow(saved.folder, which, lambda n: saved.read_leaves(n, named)[0])
  saved.close()
  put = lambda x, value: (
    jax.random.wrap_key_data(value) if is_key(x) else jnp.asarray(value)
  )
  leaves = [put(x, found[name]) for name, x in named.items()]
  state = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
  return state if place.members is None else members.run_of(state, place.member)


def step_of(config: Config, workdir, step: int | str) -> int:
  """The number of 'latest', 'best' or a number. Raises as `evaluate` does."""
  saved = _saved(_place(workdir).folder, config)
  found = pick(saved, workdir, step, config.best_metric)
  saved.close()
  return found


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
  found = opened(experiment, config, workdir, step=step, data_dir=data_dir, mesh=mesh)
  figure = experiment.figures[name]
  tree = drawing.compute(
    name,
    figure,
    found.rehearsed.figures.get(name),
    found.state,
    int(found.state.step),
    batch=lambda dataset: feed.one_batch(found.data[id(dataset)], 0),
    summary=found.summary,
    history=lambda: history.of_training(
      MetricsFile(absolute(workdir)).read(), int(found.state.step)
    ),
  )
  return figure.draw(tree)


class Opened(NamedTuple):
  """A checkpoint on the devices, and the data of evaluations and figures.

  Attributes:
    experiment: of the run.
    dispatch: its programs and shardings.
    state: of the checkpoint.
    data: by the id of the Dataset.
    evaluations: compiled at their first pass.
    rehearsed: figures.
  """

  experiment: Experiment
  dispatch: Dispatch
  state: TrainState
  data: Mapping[int, feed.Placed]
  evaluations: Evaluations
  rehearsed: Rehearsed

  def summary(self, split: str, state: TrainState | None = None):
    """What one evaluation finds; None: of the state of the checkpoint."""
    state = self.state if state is None else state
    return self.evaluations.run([split], state)[split].figures

  def metrics(self, state: TrainState | None = None) -> dict[str, Any]:
    """Numbers of all evaluations by "split/name".

    Args:
      state: what is evaluated, placed as that of the checkpoint; None: that.
    """
    shape = self.state.stop.shape
    return {
      f'{split}/{key}': as_floats(value)
      for split in self.experiment.evals
      for key, value in self.summary(split, state).items()
      if reported(value, shape)
    }


def opened(
  experiment: Experiment,
  config: Config,
  workdir,
  *,
  step: int | str = 'latest',
  data_dir=None,
  mesh: str | None = None,
  train: bool = False,
) -> Opened:
  """A checkpoint with its evaluations; writes nothing.

  Args:
    step: see `evaluate`.
    train: whether the data of training are read, too.

  Raises:
    ConfigError: see `evaluate`.
  """
  dispatch = make_dispatch(experiment, sharding.make_mesh(mesh))
  rehearsed = rehearse(experiment, config, dispatch)
  step_of(config, workdir, step)  # Before anything is read.
  data = feed.load(experiment, data_dir, dispatch.mesh, train=train)
  restored = _restored(experiment, dispatch, workdir, config, step)
  evaluations = Evaluations(
    experiment, config, dispatch, data, Clock(), rehearsed.evals
  )
  return Opened(experiment, dispatch, restored, data, evaluations, rehearsed)


def saved_steps(config: Config, workdir) -> list[int]:
  """Steps of the checkpoints of a run, oldest first."""
  saved = _saved(_place(workdir).folder, config)
  found = saved.steps()
  saved.close()
  return found


def _saved(workdir, config: Config) -> Checkpointer:
  """Reads checkpoints alone."""
  return Checkpointer(
    workdir / 'checkpoints',
    keep=config.keep_checkpoints,
    read_only=True,
    best_metric=config.best_metric,
    best_mode=config.best_mode,
  )


# Of a study a number, of a sweep the name of a run.
_TOGETHER = re.compile(r'\.\./\.\./together/[\w=+,@-][\w=+,.@-]*')


class _Place(NamedTuple):
  """Where the checkpoints of a run lie.

  Attributes:
    folder: the workdir; of a run that was trained together with others theirs.
    member: its number among them.
    members: how many they are; None: it was trained by itself.
  """

  folder: epath.Path
  member: int = 0
  members: int | None = None


def _place(workdir) -> _Place:
  """Raises ConfigError where config.json of the workdir leads elsewhere."""
  folder = absolute(workdir)
  path = folder / 'config.json'
  of = read_json(path).get('together') if path.exists() else None
  if of is None:
    return _Place(folder)
  try:
    there, member, count = str(of['workdir']), int(of['member']), int(of['members'])
  except (KeyError, TypeError, ValueError):
    there, member, count = '', 0, 0
  # Another run of the same study, and nothing else on this disk.
  if not _TOGETHER.fullmatch(there) or not 0 <= member < count:
    raise ConfigError(
      f'{path}: together={of} is not allowed: must name a member of a program of the '
      'same study.'
    )
  return _Place(absolute(folder.parent.parent / there[6:]), member, count)


def _restored(
  experiment: Experiment, dispatch: Dispatch, workdir, config: Config, step: int | str
) -> TrainState:
  """The state of a checkpoint, also while its run saves and drops others."""
  place = _place(workdir)
  if place.members is not None:
    own = unplaced(experiment, config, workdir, step=step)
    return processes.put(own, jax.tree.map(lambda x: x.sharding, dispatch.state))
  saved = _saved(place.folder, config)
  which = lambda: pick(saved, workdir, step, config.best_metric)
  read = lambda found: saved.restore(dispatch.state, dispatch.window, found)
  restored = files.follow(saved.folder, which, read)
  saved.close()
  assert restored is not None
  return restored.state
