"""One dispatch: the jitted program of one or more train steps, and of evaluations.

The one place where train, plan, doctor and sweep get their compiled function and
shardings from, so that what is planned is what runs. Init, steps and summaries are
traced with the mesh ambient (dlx/layers/mesh.py), where it has several devices.
"""

import functools
from typing import Any, Callable, Mapping, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from dlx.data.dataset import Dataset, Resident
from dlx.experiment import Eval, Experiment
from dlx.run import flops, sharding
from dlx.state import Key, TrainState, add, zeros_like
from dlx.train.steps import all_finite


class Dispatch(NamedTuple):
  """What a run needs to go k steps on.

  Attributes:
    mesh: that everything here lies on.
    state: ShapeDtypeStructs of the state, with their shardings.
    window: the same of the metric sums, replicated.
    batches: shardings of each field of a batch, by shape id.
    arrays: sharding of resident arrays, and of all else that every device holds.
    init: jitted key -> state, placed.
    zeros: jitted () -> metric sums of no step.
    run: by shape id, jitted (state, window, data, n) -> (state, window, bad). `data`
      is the resident arrays, or one placed batch where data is streamed; n the number
      of steps, traced, 1 unless resident. `bad` is the first step (counted from 0)
      whose metrics are not finite, or -1; it is never donated, so that the host can
      wait for it. Donates state and window.
    after_eval: of the experiment, jitted; donates the state. None: it has none.
  """

  mesh: Mesh | AbstractMesh
  state: TrainState
  window: Any
  batches: tuple[Mapping[str, Any], ...]
  arrays: Any
  init: Callable[[Key], TrainState]
  zeros: Callable[[], Any]
  run: tuple[Callable[..., tuple[TrainState, Any, jax.Array]], ...]
  after_eval: Callable[[TrainState, Mapping[str, Any]], TrainState] | None


def placed(abstract: Any, shardings: Any) -> Any:
  """ShapeDtypeStructs that know their shardings."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
  )


def make_dispatch(experiment: Experiment, mesh: Mesh | AbstractMesh) -> Dispatch:
  """Builds the dispatch for a mesh; compiles and reads nothing.

  Over resident data it is a loop with a traced trip count, so that one program serves
  every number of steps, and cutting it elsewhere gives equal bits (a loop and no loop
  would not). Streamed data takes one step a dispatch.

  Raises:
    ValueError: a train_step that changes structure, shape or dtype of the state.
    ConfigError: a batch that the mesh does not divide.
  """
  data = experiment.train_data
  resident = isinstance(data, Resident)
  traced = functools.partial(sharding.traced_under, mesh)
  init = traced(experiment.init)
  # The key is made while tracing: making a real one would compile a program.
  abstract = jax.eval_shape(lambda: init(jax.random.key(0)))
  shapes = sharding.state_shardings(mesh, abstract, experiment.placement)
  whole = sharding.replicated(mesh)
  batches = sharding.of_batches(mesh, data)
  # Traced here and inlined where it is called: one trace serves both. Placed, as the
  # mesh is a part of what JAX knows a trace by.
  train_step = jax.jit(traced(experiment.train_step), inline=True)
  traces = [
    jax.eval_shape(train_step, placed(abstract, shapes), batch)
    for batch in map(placed, data.shapes, batches)
  ]
  for new, _ in traces:
    _same_structure('train_step', abstract, new)
  sums = traces[0][1]

  def step(state, window, batch):
    index = state.step
    state, metrics = train_step(state, batch)
    bad = jnp.where(all_finite(metrics), -1, index)
    return state, add(window, metrics), bad

  def make_run(shape_id):
    def get(arrays, index):
      batch = get_batch(data, arrays, index, shape_id)
      return jax.lax.with_sharding_constraint(batch, batches[shape_id])

    def one(state, window, batch, n):
      del n
      return step(state, window, batch)

    def many(state, window, arrays, n):
      def body(_, carry):
        state, window, first_bad = carry
        state, window, bad = step(state, window, get(arrays, state.step))
        return state, window, jnp.where(first_bad < 0, bad, first_bad)

      return jax.lax.fori_loop(0, n, body, (state, window, jnp.int32(-1)))

    return jax.jit(
      many if resident else one,
      donate_argnums=(0, 1),
      out_shardings=(shapes, whole, whole),
    )

  window = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), sums
  )
  after_eval = experiment.after_eval

  def after(state, scalars):
    assert after_eval is not None
    new = traced(after_eval)(state, scalars)
    _same_structure('after_eval', state, new)
    return new

  return Dispatch(
    mesh=mesh,
    state=placed(abstract, shapes),
    window=window,
    batches=batches,
    arrays=whole,
    init=jax.jit(init, out_shardings=shapes),
    zeros=jax.jit(lambda: zeros_like(sums), out_shardings=whole),
    run=tuple(make_run(i) for i in range(len(data.shapes))),
    after_eval=None
    if after_eval is None
    else jax.jit(after, donate_argnums=0, out_shardings=shapes),
  )


def get_batch(data: Dataset, arrays, index, shape_id: int):
  """Batch `index`; data with several shapes is told which one, as it must be static."""
  if len(data.shapes) == 1:
    return data.get(arrays, index)
  return data.get(arrays, index, shape_id=shape_id)  # type: ignore[call-arg]


def make_eval(evaluation: Eval, mesh: Mesh | AbstractMesh, state: TrainState):
  """(zeros, accumulate, summarize) of one evaluation, jitted.

  accumulate: (sums, state, data, i) -> (sums, ticket), `data` as in `Dispatch.run`;
  donates the sums. The ticket is never donated, so that the host can wait for it.
  """
  data: Dataset = evaluation.data
  resident = isinstance(data, Resident)
  whole = sharding.replicated(mesh)
  batches = sharding.of_batches(mesh, data)
  # One trace, here and below.
  step = jax.jit(sharding.traced_under(mesh, evaluation.step), inline=True)
  sums = jax.eval_shape(step, state, placed(data.shapes[0], batches[0]))

  def accumulate(sums, state, data_or_batch, i):
    batch = data_or_batch
    if resident:
      batch = jax.lax.with_sharding_constraint(data.get(data_or_batch, i), batches[0])
    return add(sums, step(state, batch)), i + 0

  zeros = jax.jit(lambda: zeros_like(sums), out_shardings=whole)
  return (
    zeros,
    jax.jit(accumulate, donate_argnums=0, out_shardings=(whole, whole)),
    jax.jit(sharding.traced_under(mesh, evaluation.summarize), out_shardings=whole),
  )


def _same_structure(what: str, old: Any, new: Any):
  """Raises ValueError, naming the leaf, unless `what` keeps the state's structure."""
  paths = lambda tree: {
    jax.tree_util.keystr(p): (x.shape, str(x.dtype))
    for p, x in jax.tree_util.tree_leaves_with_path(tree)
  }
  before, after = paths(old), paths(new)
  for path in sorted(before.keys() | after.keys()):
    if before.get(path) != after.get(path):
      raise ValueError(
        f'{what} changes the state at {path}: {before.get(path)} before, '
        f'{after.get(path)} after. Structure, shapes and dtypes are constant for the '
        'whole run: keep both forms in the state and choose by jnp.where.'
      )
  if jax.tree.structure(old) != jax.tree.structure(new):
    raise ValueError(
      f'{what} changes the containers of the state: '
      f'{jax.tree.structure(old)} before, {jax.tree.structure(new)}.'
    )


def compiled(
  jitted: Any, *args: Any, lowered: Callable[[Any], None] = lambda _: None
) -> Callable:
  """A program for arguments of these shapes.

  Itself where JAX_DISABLE_JIT or JAX_DEBUG_NANS is set: they do not look into what was
  compiled ahead.

  Args:
    jitted: as jax.jit gives it.
    args: of its shapes.
    lowered: is given the program before it is compiled.
  """
  if jax.config.jax_disable_jit or jax.config.jax_debug_nans:
    return jitted
  program = jitted.lower(*args)
  lowered(program)
  return program.compile()


def flops_of_step(jitted: Any, *args: Any, resident: bool, platform: str) -> int | None:
  """Operations of one step on all devices, counted on its jaxpr; see flops.py.

  Args:
    jitted: of `Dispatch.run`; not traced anew where it was for these arguments.
    args: as it is called with.
    resident: whether it loops over steps.
    platform: of the devices.

  Returns:
    None where they are not known: JAX_DISABLE_JIT is set, or loops of products have a
    length that no one knows before the run. No training ends because its operations
    could not be counted: that is None, too, with a warning.
  """
  if jax.config.jax_disable_jit:
    return None
  try:
    found = flops.count(jitted.trace(*args).jaxpr, platform)
  except Exception as error:  # Whatever it was, it is no reason to train nothing.
    logging.warning('Operations of a step are not counted: %r', error)
    return None
  over_steps = resident and found.total > 0
  return None if found.open_loops > over_steps else found.total
