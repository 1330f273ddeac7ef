"""Statistics of batch norm, found anew for weights that no training step has seen.

Averaged weights need them (arXiv 1803.05407, section 3.2): those of the runs that were
averaged belong to other activations.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Resident
from dlx.experiment import Experiment
from dlx.run import feed, sharding
from dlx.run.dispatch import get_batch
from dlx.run.reopen import Opened
from dlx.state import PyTree, TrainState, leaves_by_path

_COLLECTION = 'batch_stats'  # Flax's name, anywhere in the model's state.
_PROBE = 1e6  # Far above any mean or variance: 1 - momentum is then exact to 1e-7.


def has_statistics(experiment: Experiment) -> bool:
  """Whether the model keeps running statistics of batches; traces `init` alone."""
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  return any(map(_is_statistic, leaves_by_path(state.model_state)))


def recomputed(opened: Opened, state: TrainState, num_batches: int) -> TrainState:
  """The state with statistics that are the means over training batches.

  Each batch counts the same, whatever the momentum of the layers: from statistics of 0
  a step leaves (1 - momentum) times those of its batch, and 1 - momentum is what it
  takes from a large number. So no experiment has to say how its model is applied: its
  own train step is, of which all but the statistics is dropped, and not computed.
  Statistics that training leaves as they are, of a frozen net, stay.

  Args:
    opened: the run, with the data of its training.
    state: its weights `averaged` are those that count.
    num_batches: batches 0, 1, ... of the training stream, 1 or more.
  """
  old = _statistics(state.model_state)
  if not old:
    return state
  params = jax.tree.map(lambda x, p: x.astype(p.dtype), state.averaged, state.params)
  step = _step(opened)
  put = lambda value: {k: jnp.full_like(x, value) for k, x in old.items()}
  batches = _batches(opened, num_batches)
  try:
    read, shape_id = next(batches)
    after = lambda start: step(state, params, start, read, np.int32(0), shape_id)
    zero, probe = put(0), put(_PROBE)
    from_zero, from_probe = after(zero), after(probe)
    changed = {
      k: bool((from_zero[k] != 0).any() | (from_probe[k] != _PROBE).any()) for k in old
    }
    # Once more, as what stays was probed, too, and others follow from it.
    start = lambda values: {k: values[k] if changed[k] else old[k] for k in old}
    total, from_probe = after(start(zero)), after(start(probe))
    taken = {k: 1 - (from_probe[k] - total[k]) / _PROBE for k in old}
    for i, (read, shape_id) in enumerate(batches, 1):
      found = step(state, params, start(zero), read, np.int32(i), shape_id)
      total = jax.tree.map(jnp.add, total, found)
  finally:
    batches.close()
  new = {k: total[k] / (num_batches * taken[k]) if changed[k] else old[k] for k in old}
  new = {k: new[k].astype(x.dtype) for k, x in old.items()}
  return state._replace(model_state=_with(state.model_state, new))


def _step(opened: Opened) -> Callable[..., dict[str, jax.Array]]:
  """(state, params, statistics, data, i, shape id) -> statistics after a train step."""
  experiment, dispatch = opened.experiment, opened.dispatch
  data = experiment.train_data
  train_step = sharding.traced_under(dispatch.mesh, experiment.train_step)

  def step(state, params, start, read, i, shape_id):
    batch = read
    if isinstance(data, Resident):
      batch = get_batch(data, read, i, shape_id)
      batch = jax.lax.with_sharding_constraint(batch, dispatch.batches[shape_id])
    # Of another step each: dropout and augmentation draw anew.
    state = state._replace(
      params=params, step=state.step + i, model_state=_with(state.model_state, start)
    )
    new, _ = train_step(state, batch)
    return _statistics(new.model_state)

  return jax.jit(step, static_argnums=5, out_shardings=dispatch.arrays)


def _batches(opened: Opened, count: int):
  """What `_step` reads of each batch, and the number of its shape."""
  data = opened.experiment.train_data
  placed = opened.data[id(data)]
  if placed.arrays is not None:
    for i in range(count):
      yield placed.arrays, data.shape_id(i)
    return
  source = feed.stream(placed, 0, count)
  try:
    for i in range(count):
      yield next(source), data.shape_id(i)
  finally:
    source.close()


def _is_statistic(path: str) -> bool:
  return _COLLECTION in path.split('/')


def _statistics(model_state: PyTree) -> dict[str, Any]:
  found = leaves_by_path(model_state)
  return {k: x for k, x in found.items() if _is_statistic(k)}


def _with(model_state: PyTree, values: dict[str, Any]) -> PyTree:
  """The tree with other leaves by path."""
  found = {**leaves_by_path(model_state), **values}
  return jax.tree.unflatten(jax.tree.structure(model_state), list(found.values()))
