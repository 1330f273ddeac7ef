"""A net that another run or the first steps of this one train, and that is then frozen.

A judge, a teacher, a trunk, an encoder. Where the net lies in the state, and how it
learns, an experiment says in full view; what all of them share is here:

  teacher: auxiliary.Config = auxiliary.Config()          in the Config
  first = config.teacher.first_steps(config.num_steps)    in build
  auxiliary.phases(step, first, teach, learn, state, batch)      in the train step
  warm_start=auxiliary.warm_start(workdir, restore, read, write) of the Experiment

Nothing reads another run here: the experiment hands in what does.
"""

import dataclasses
from typing import Any, Callable, Mapping, TypeVar

import jax
import jax.numpy as jnp

from dlx.config import Group
from dlx.state import Array, Mean, Metric, PyTree, TrainState
from dlx.train import steps

# (workdir, the variables wanted) -> (variables, origin), as run.warm_start has them.
Restore = Callable[[Any, Any], tuple[Any, Mapping[str, Any]]]
WarmStart = Callable[[TrainState], tuple[TrainState, Mapping[str, Any]]]
_T = TypeVar('_T')

# What a run reports of an encoder that the first steps train and that is frozen then.
FROZEN: Mapping[str, Metric] = {
  'pretrain_loss': Metric(
    'Contrastive loss',
    'lower',
    'Loss of the encoder, from two views of the images of a batch; 0 once the encoder '
    'is frozen.',
    'nats',
    'loss',
  ),
  'frozen': Metric(
    'Frozen encoder',
    None,
    'Share of the steps after which the encoder had the checksum of the step at which '
    'the encoder was frozen.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Group):
  """Where the net comes from."""

  workdir: str | None = None  # Workdir of a run that trained this net; None: own steps.
  num_steps: int = 300  # First steps of the run that train this net without a workdir.
  lr: float = 3e-3  # Largest learning rate of this net's own optimiser.

  def __post_init__(self):
    super().__post_init__()
    self.require('workdir', self.workdir != '', 'a workdir, or None')
    self.bounds('num_steps', least=0)
    self.bounds('lr', above=0)

  def first_steps(self, most: int) -> int:
    """How many steps of a run of `most` train the net: 0 where it is restored."""
    return 0 if self.workdir else min(self.num_steps, most)


def phases(
  step: Array, first: int, learn: Callable[..., _T], then: Callable[..., _T], *args: Any
) -> _T:
  """`learn(*args)` while `step < first`, `then(*args)` from that step on.

  One of the two is computed. Both give the same structure, so that the state keeps its
  own; what a phase does not touch keeps every byte.

  Args:
    step: of the run, counted from 0.
    first: steps of the first phase; 0: there is none, and `learn` is not traced.
  """
  if first == 0:
    return then(*args)
  return jax.lax.cond(step < first, learn, then, *args)


def waiting(done: Array, old: TrainState, new: TrainState) -> TrainState:
  """The state of a main net that waits until the auxiliary one is frozen.

  Parameters, optimiser and average are those of `old` until `done`; all else is new.
  """
  net = lambda state: (state.params, state.opt_state, state.ema)
  params, opt_state, ema = steps.where(done, net(new), net(old))
  return new._replace(params=params, opt_state=opt_state, ema=ema)


def still_frozen(
  done: Array, marks: PyTree, params: PyTree, checksum: Callable[[Array], Array]
) -> tuple[PyTree, Mean]:
  """Checksums of a net at the step at which it was frozen, and whether it has them yet.

  Args:
    done: whether the net is frozen at this step.
    marks: what this function gave at the step before; at first `checksum` of each leaf.
    params: of the net, after this step.
    checksum: e.g. `run.checkpoint.checksums.checksum`.

  Returns:
    (marks, 1 where the net is frozen and every leaf has its checksum, else 0).
  """
  now = jax.tree.map(checksum, params)
  marks = steps.where(done, marks, now)
  same = jax.tree.leaves(jax.tree.map(lambda a, b: (a == b).all(), now, marks))
  still = jnp.stack([done, *same]).all().astype(jnp.float32)
  return marks, Mean(still, jnp.ones(()))


def warm_start(
  workdir: str | None,
  restore: Restore,
  read: Callable[[TrainState], PyTree],
  write: Callable[[TrainState, Any], TrainState],
) -> WarmStart | None:
  """For `Experiment.warm_start`: the net of another run; None without a workdir.

  Args:
    workdir: of the other run.
    restore: what reads it, e.g. `run.warm_start.restore_model`.
    read: the variables in the state that are asked for.
    write: (state, variables found) -> state with them.
  """
  if workdir is None:
    return None

  def load(state):
    found, origin = restore(workdir, read(state))
    return write(state, found), origin

  return load
