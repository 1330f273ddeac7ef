"""What every experiment must hold, as functions; launch.check and the tests call them.

Each takes the `build` and configs of an experiment, and raises Failed, one line that
says what is wrong and what would be right.
"""

import dataclasses
import functools
import pathlib
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlx.config_json import config_of_fields
from dlx.errors import ConfigError, DataError
from dlx.experiment import Config, Experiment, Field, Function, Overfit, example_shapes
from dlx.run import effects, feed, sharding
from dlx.run.dispatch import make_dispatch
from dlx.run.loop import fit
from dlx.run.records.json_files import read_json
from dlx.run.rehearsal import rehearse
from dlx.state import is_key, ratios

Build = Callable[[Any], Experiment]
ROWS = 4
# Of sizes that a declaration leaves open, and of options.
SIZES = {
  'length': 6,
  'source_length': 5,
  'target_length': 6,
  'nodes': 7,
  'edges': 9,
  'entries': 8,
  'pairs': 5,
}
OPTIONS = {'num_tokens': 5, 'steps': 2}
# Other values than the defaults of fields that every run has.
OTHER = {'ema_decay': 0.9, 'clip_norm': 1.0, 'clip_value': 1.0, 'micro_batches': 2}

# For a program that runs once: optimising ConvNeXt's takes 4 of 5.4 s.
ONCE = {'xla_llvm_disable_expensive_passes': True, 'xla_backend_optimization_level': 0}


class Failed(Exception):
  """What an experiment does not hold, as one line."""


def traced(build: Build, config: Config) -> Mapping[str, Any]:
  """It builds without data, and all that a run calls can be traced.

  Returns:
    ShapeDtypeStructs of the metrics that a training step sums up.
  """
  experiment = build(config)
  dispatch = make_dispatch(experiment, sharding.make_mesh(None))
  found = rehearse(experiment, config, dispatch)
  for split, evaluation in found.evals.items():
    shapes = {getattr(x, 'shape', None) for x in evaluation.found.values()}
    if dispatch.state.stop.shape not in shapes:
      raise Failed(f'The evaluation {split!r} reports no number.')
  return dispatch.window


def restarted(
  build: Build, config: Config, folder: pathlib.Path, figures: bool = True
) -> Mapping[str, Any]:
  """Stopped once and gone on with, it ends with the bits of a straight run.

  Args:
    config: of six steps or more with an evaluation in the middle.
    folder: empty; the straight run is in FOLDER/straight.
    figures: whether the straight run draws its figures.

  Returns:
    result.json of the straight run.
  """
  results = []
  last = config.num_steps
  # A step a dispatch; then dispatches of up to four, cut by the stop.
  ways = (('straight', 1, 2, []), ('stopped', 4, last, [last // 2 + 1]))
  for name, steps, log, stops in ways:
    own = dataclasses.replace(config, steps_per_dispatch=steps, log_every_steps=log)
    built = _traced_once(build(own))
    if stops:
      built = built._replace(functions={})  # They were traced by the straight run.
    if stops or not figures:
      built = built._replace(figures={})
    for stop in [*stops, None]:
      fit(built, own, folder / name, stop_at=stop, terminal=False)
    results.append(read_json(folder / name / 'result.json'))
  if results[0]['fingerprint'] != results[1]['fingerprint']:
    raise Failed(
      'A run that was stopped and went on ended with other bits than a straight one: '
      'all that a step depends on must be in the TrainState, or follow from the step.'
    )
  return results[0]


def _traced_once(built: Experiment) -> Experiment:
  """The experiment whose functions that are costly to trace are traced once.

  By what goes on after a stop, and by splits that share a function: of the restart of
  `transformer` tracing took a third. The straight run has an experiment of its own.
  """
  once = functools.cache(lambda fn: jax.jit(fn, inline=True))
  evals = {name: x._replace(step=once(x.step)) for name, x in built.evals.items()}
  init, step = once(built.init), once(built.train_step)
  return built._replace(init=init, train_step=step, evals=evals)


def overfitted(build: Build, config: Config, data_dir: Any = None) -> float | None:
  """One repeated batch is learnt in `config.num_steps`, to the experiment's own floor.

  Returns:
    The least value of the metric; None: the experiment says why there is no floor, or
    says nothing.
  """
  built = build(config)
  goal = _goal(built)
  if goal is None:
    return None
  asked = dict(goal.fields) | ({} if goal.steps is None else {'num_steps': goal.steps})
  if asked:
    try:
      config = config_of_fields(type(config), asked, config)
    except ConfigError as error:
      raise Failed(f'The fields of `overfit`: {error}') from error
    built = build(config)
    goal = _goal(built) or goal  # Its least value may be another.
  data, mesh = built.train_data, sharding.make_mesh(None, jax.devices()[:1])
  batch = feed.one_batch(feed.place(data, data.load(data_dir), mesh), 0)
  floor = goal.above + (0 if goal.least is None else float(goal.least(batch)))
  step = jax.jit(built.train_step, donate_argnums=0)
  # Placed as a step returns it: else the second step is compiled anew.
  init = jax.jit(
    built.init, out_shardings=sharding.replicated(mesh), compiler_options=ONCE
  )
  state, least = init(jax.random.key(config.seed)), np.inf
  for _ in range(config.num_steps):
    state, sums = step(state, batch)
    value = float(np.mean(ratios(sums)[goal.metric]))
    least = min(least, value if np.isfinite(value) else np.inf)
    if least <= floor:
      return least
  raise Failed(
    f'One batch that is repeated {config.num_steps} times is not learnt: {goal.metric} '
    f'came to {least:.4g}, the floor of `overfit` is {floor:.4g}.'
  )


def _goal(built: Experiment) -> Overfit | None:
  """What one repeated batch reaches; None: the experiment names nothing."""
  goal = built.overfit
  if goal is None or isinstance(goal, str):
    return None
  if not isinstance(goal, Overfit):
    raise Failed(
      f'overfit={goal!r} is not allowed: must be an Overfit, a text that says why '
      'nothing is reached, or None.'
    )
  return goal


def rows(experiment: Experiment) -> int:
  """A row of a function's outputs is the same in any batch, and with padding.

  Returns:
    How many functions were tried; one of a whole graph has no rows.
  """
  functions = {k: f for k, f in experiment.functions.items() if not f.of_graph}
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  # Of no optimiser: no function reads one. The rest is drawn, which compiles nothing.
  state = jax.tree.map(lambda x: some_weights(rng, x), shapes._replace(opt_state=()))
  order = np.array([*reversed(range(ROWS)), *range(ROWS)])
  for what, function in functions.items():
    call = jax.jit(lambda s, x, f=function: f.call(s, x, **options(f)))
    inputs = {
      k: np.stack([example(rng, field) for _ in range(2 * ROWS)])
      for k, field in function.inputs.items()
    }
    pick = lambda index, x=inputs: {k: v[index] for k, v in x.items()}
    together = call(state, inputs)
    # Twice the first half: other neighbours; and one alone.
    others = {'others beside it': order, 'none beside it': np.arange(1)}
    for beside, index in others.items():
      for output, found in call(state, pick(index)).items():
        _compare(
          f'{what}: {output}', beside, found, np.asarray(together[output])[index]
        )
    longer = {k: _longer(v, function.inputs[k].pad) for k, v in inputs.items()}
    if any(longer[k] is not v for k, v in inputs.items()):
      for output, found in call(state, longer).items():
        _compare(f'{what}: {output}', 'padding behind it', found, together[output])
    draws = any(field.kind == 'seed' for field in function.inputs.values())
    kinds = {output: field.kind for output, field in function.outputs.items()}
    likeliest = [
      np.asarray(together[k]).argmax(-1)
      for k, kind in kinds.items()
      if kind == 'probabilities'
    ]
    one_class = likeliest and all((x == x[:1]).all() for x in likeliest)
    for output, value in together.items():
      if kinds[output] == 'tokens' and not draws:
        continue  # The likeliest by drawn weights may be the same for all inputs.
      if kinds[output] == 'number' and one_class:
        continue  # So may what follows from the likeliest class, as its interval.
      if not np.asarray(value, np.float64).std(0).max() > 1e-4:
        raise Failed(f'{what}: {output} is the same for every input.')
  return len(functions)


def _longer(rows: np.ndarray, pad: int | None) -> np.ndarray:
  """Rows of tokens with padding behind them; all else as it is."""
  if pad is None:
    return rows
  return np.pad(rows, ((0, 0), (0, 5)), constant_values=pad)


def options(function: Function) -> dict[str, Any]:
  """The options of a function, small where they are sizes."""
  return {k: OPTIONS.get(k, v) for k, v in function.options.items()}


def _compare(what: str, beside: str, found: Any, wanted: np.ndarray):
  if not np.isfinite(wanted).all():
    raise Failed(f'{what} is not finite.')
  # Roundings of the largest number of the output. Of 21 experiments 3.8 is the most
  # (ddpm's sampler; jax 0.11.2, CPU, November 2026).
  bound = 64 * np.finfo(np.float32).eps * np.abs(wanted).max()
  if not np.abs(np.asarray(found, np.float64) - wanted).max() <= bound:
    raise Failed(
      f'{what} of a row is another with {beside}: a row must depend on itself alone.'
    )


def example(rng: np.random.Generator, field: Field) -> Any:
  """A row of the kind that a field declares."""
  shape = example_shapes({'': field}, (), SIZES)[''].shape
  if field.kind == 'image':
    return rng.integers(0, 17, shape).astype(field.dtype)
  if field.kind == 'label' or (field.kind == 'column' and field.names):
    return rng.integers(0, 2, shape).astype(field.dtype)
  if field.kind == 'tokens':
    return rng.integers(1, _tokens(field), shape).astype(field.dtype)
  if field.kind == 'seed':
    return rng.integers(0, 2**32, shape, dtype=np.uint32)
  if field.kind == 'number':
    return rng.uniform(0.5, 1, shape).astype(field.dtype)
  return rng.normal(size=shape).astype(field.dtype)


def _tokens(field: Field) -> int:
  """A bound of tokens that a field may hold: 40, or of a small vocabulary its size."""
  if field.vocabulary is None:
    return 40
  try:
    return min(40, len(field.vocabulary(None)))
  except DataError:  # Its words lie in data that are not there.
    return 40


def some_weights(rng: np.random.Generator, shape: Any) -> Any:
  """A leaf of a state as training may leave one: all places of a bank are filled."""
  if is_key(shape):
    return jax.random.split(jax.random.key(0), shape.shape or 1).reshape(shape.shape)
  if not jnp.issubdtype(shape.dtype, jnp.inexact):
    return rng.integers(0, 2, shape.shape).astype(shape.dtype) | (shape.dtype == bool)
  if len(shape.shape) < 2:  # Scales, biases and variances of batch norm.
    return rng.uniform(0.5, 1.5, shape.shape).astype(shape.dtype)
  fan_in = np.prod(shape.shape[:-1])
  return (rng.normal(size=shape.shape) / np.sqrt(fan_in)).astype(shape.dtype)


def refused(build: Build, config: Config) -> list[str]:
  """Flags that every run has and that a start with this experiment refuses.

  By the Config, or because nothing reads them: see `effects`.
  """
  return [
    field for field, value in OTHER.items() if _is_refused(build, config, field, value)
  ]


def _is_refused(build: Build, config: Config, field: str, value: Any) -> bool:
  try:
    return field in effects.without(
      build, dataclasses.replace(config, **{field: value})
    )
  except ConfigError:
    return True


def half_precision(build: Build, config: Config) -> bool:
  """compute_dtype=bfloat16 reaches the products of the model.

  Returns:
    Whether it is allowed: neither the Config refuses it, nor a start, since nothing
    reads it.
  """
  if _is_refused(build, config, 'compute_dtype', 'bfloat16'):
    return False
  built = build(dataclasses.replace(config, compute_dtype='bfloat16'))
  state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  program = str(jax.make_jaxpr(built.train_step)(state, built.train_data.shapes[0]))
  if 'bf16' not in program:
    raise Failed(
      '--config.compute_dtype=bfloat16 has no effect: give the model '
      '`**config.dtypes`, its dtype and param_dtype.'
    )
  return True
