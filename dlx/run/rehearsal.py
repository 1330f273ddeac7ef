"""Every function that a run will call, traced before anything is read or written.

A bug in an evaluation, in what follows one, in a figure or in a function then costs
seconds, and not the training before it. Nothing is compiled; evaluations and figures go
on with these very programs, so that nothing is traced twice.
"""

import collections
import contextlib
from typing import Any, Callable, Iterator, Mapping, NamedTuple

import jax
import jax.numpy as jnp

from dlx.data.dataset import Resident
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment, Figure, Function, example_shapes
from dlx.run import sharding
from dlx.run.dispatch import Dispatch, make_eval, placed
from dlx.run.records.reporter import reported
from dlx.state import Mean, ratios


class Evaluating(NamedTuple):
  """One evaluation as programs; see `make_eval`.

  Attributes:
    zeros, accumulate, summarize: jitted.
    found: ShapeDtypeStructs of what `summarize` gives.
  """

  zeros: Callable
  accumulate: Callable
  summarize: Callable
  found: Mapping[str, Any]


class Rehearsed(NamedTuple):
  """What was traced, by name.

  Attributes:
    evals: of every evaluation.
    figures: jitted `compute` of the figures that have one.
  """

  evals: Mapping[str, Evaluating]
  figures: Mapping[str, Callable]


def rehearse(experiment: Experiment, config: Config, dispatch: Dispatch) -> Rehearsed:
  """Traces evaluations, summaries, `after_eval`, figures and functions.

  Raises:
    ConfigError: a batch that the mesh does not divide; a metric in the config that no
      evaluation reports; early stopping asked of an experiment built without; a float
      metric that could only be added up; a figure of no evaluation.
    Exception: whatever the experiment's own code raises, with a note that says where.
  """
  _no_bare_floats('train_step', dispatch.window, dispatch)
  evals = {}
  for name, evaluation in experiment.evals.items():
    with _tracing(f'the evaluation {name!r}'):
      zeros, accumulate, summarize = make_eval(
        evaluation, dispatch.mesh, dispatch.state
      )
      sums = jax.eval_shape(zeros)
      if evaluation.summarize is ratios:
        _no_bare_floats(f'the evaluation {name!r}', sums, dispatch)
      found = jax.eval_shape(summarize, sums)
      evals[name] = Evaluating(zeros, accumulate, summarize, found)
  members = dispatch.state.stop.shape
  scalars = {
    f'{name}/{key}': value
    for name, traced in evals.items()
    for key, value in traced.found.items()
    if reported(value, members)
  }
  _check_metrics(config, scalars, dispatch)
  if dispatch.after_eval is not None:
    with _tracing('after_eval'):
      jax.eval_shape(dispatch.after_eval, dispatch.state, scalars)
  figures = {}
  for name, figure in experiment.figures.items():
    if figure.compute is not None:
      with _tracing(f'the figure {name!r}'):
        figures[name] = _figure(figure, dispatch)
    elif not figure.history and figure.eval not in experiment.evals:
      raise ConfigError(
        f'Figure {name!r} draws the evaluation {figure.eval!r}, which is not there: '
        f'must be one of {", ".join(experiment.evals) or "none"}; or give `compute`.'
      )
  for name, function in experiment.functions.items():
    with _tracing(f'the function {name!r}'):
      _function(function, dispatch)
  return Rehearsed(evals, figures)


@contextlib.contextmanager
def _tracing(what: str) -> Iterator[None]:
  try:
    yield
  except ConfigError:
    raise
  except Exception as error:
    error.add_note(f'dlx: raised by {what}, which was traced before the first step.')
    raise


def _no_bare_floats(what: str, sums: Mapping[str, Any], dispatch: Dispatch):
  """Refuses a float scalar that is no Mean: over batches it would be added up."""
  for name, value in sums.items():
    if isinstance(value, Mean) or not hasattr(value, 'dtype'):
      continue
    if value.shape == dispatch.state.stop.shape and jnp.issubdtype(
      value.dtype, jnp.floating
    ):
      raise ConfigError(
        f'The metric {name!r} of {what} is a float, which would be added up over '
        f'batches: give dlx.state.Mean(total, count), as dlx.metrics.mean(values) '
        'makes of one value an example; a count is an integer.'
      )


def _check_metrics(config: Config, known: Mapping[str, Any], dispatch: Dispatch):
  for field in ('best_metric', 'early_stop_metric'):
    metric = getattr(config, field)
    if metric is not None and metric not in known:
      raise ConfigError(
        f'--config.{field}={metric} is not allowed: must be one of '
        f'{", ".join(sorted(known)) or "none, as nothing is evaluated"}.'
      )
  if config.early_stop_metric is not None and not jax.tree.leaves(dispatch.state.best):
    raise ConfigError(
      f'--config.early_stop_metric={config.early_stop_metric} would have no effect: '
      'give with_early_stopping(experiment, config), of dlx.train.early_stopping, as '
      'launchers do.'
    )


def _figure(figure: Figure, dispatch: Dispatch) -> Callable:
  assert figure.compute is not None
  # Whole on every device, as the first process has to draw all of it.
  program = jax.jit(
    sharding.traced_under(dispatch.mesh, figure.compute), out_shardings=dispatch.arrays
  )
  batch: Any = {}
  if figure.data is not None:
    batch = figure.data.shapes[0]
    if not isinstance(figure.data, Resident):  # Else made on the devices, anywhere.
      batch = placed(batch, sharding.of_batches(dispatch.mesh, figure.data)[0])
  key = jax.eval_shape(lambda: jax.random.key(0))
  jax.eval_shape(program, dispatch.state, key, batch)
  return program


def _function(function: Function, dispatch: Dispatch):
  """Of two examples, which no mesh divides; a size that is left open is 2, too."""
  sizes = collections.defaultdict(lambda: 2)
  inputs = example_shapes(function.inputs, () if function.of_graph else (2,), sizes)
  bare = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
  found = jax.eval_shape(function.call, jax.tree.map(bare, dispatch.state), inputs)
  if set(found) != set(function.outputs):
    raise ConfigError(
      f'A function gives {", ".join(sorted(found))}, but declares '
      f'{", ".join(sorted(function.outputs))}: must be the same.'
    )
