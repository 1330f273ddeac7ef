"""Pictures of what goes on inside a net, for any experiment, by one line of its file.

  return inside(image_classifier(config, ...))    in `mlp` and `cnn`: --config.inside

adds four figures and a number to what a run reports:

activations        histograms of what every layer gives, on the first batch of a split
dead_units         ReLUs that are 0 for every example of the split, by layer; the share
                   of them is reported beside its other numbers
gradient_norms     of every tensor whose gradient the train step names, as
                   steps.gradients and steps.watch do, but not in a branch of two
                   phases; on the first batch of training, with the labels zero,
                   vanishing (below 1e-7) and exploding (above 100)
gradients_by_step  of the same gradients the norms by layer over the run, a mean over
                   the steps of each log window; also in metrics.jsonl and TensorBoard,
                   as the group `gradient_norms`

The layers are found in the traced functions, so that any model will do. What it costs:
in training the norm of each gradient, a pass over as many numbers as there are
parameters; in an evaluation a reduction over the values of each ReLU, of the pass that
is made anyway; for the figures one evaluated batch and one train step, each time they
are drawn (`--config.figure_every_steps`: over the run), and a program each. Of 100
steps of `cnn` on digits, compiled anew, that is 17 s of CPU in place of 11; 1500 steps
of `mlp` took 4.7 s with it and without (two runs each, two cores, jax 0.11.2,
2026-11-30), and their parameters had the same bits. An evaluation of a checkpoint reads
the training set, too, for the gradients; the norms of each single step are
`launch.doctor`'s.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dlx.experiment import Eval, Experiment, Figure
from dlx.figures import inside as draw
from dlx.inspect import gradients, operations
from dlx.inspect.subject import with_norms
from dlx.optim import global_norm
from dlx.state import Array, Batch, Mean, Metric, Metrics, TrainState

DEAD_UNITS = Metric(
  'Dead units',
  'lower',
  'Share of the ReLUs before other layers that are 0 for every example of the split.',
  '%',
  'share',
)
ON = 'relu_on'  # Sums of an evaluation: by layer, batches in which each unit was on.
NORMS = (
  'gradient_norms'  # The group of a train step: by layer the norm of its gradient.
)
_MOST = 1e30  # A sum of so large norms is still a float32.


def inside(experiment: Experiment, split: str | None = None) -> Experiment:
  """The experiment with the figures and the number above.

  Args:
    experiment: of one run, not of several members.
    split: the evaluation that is looked into; None: `test`, or else the first. Where
      there is none, gradients alone are drawn.

  Returns:
    A train step whose state is that of the step before, to rounding; its metrics hold
    the group `gradient_norms` besides, where it names gradients.
  """
  evals, figures = dict(experiment.evals), dict(experiment.figures)
  if split is None and evals:
    split = 'test' if 'test' in evals else next(iter(evals))
  if split is not None:
    own = evals[split]
    evals[split] = _watched(own)
    title = f'Dead units over {split}'
    figures |= {
      'activations': Figure(
        lambda tree: draw.activations(named(tree)), histograms(own.step), own.data
      ),
      'dead_units': Figure(
        lambda found: draw.dead_units(named(found.get('units', {})), title), eval=split
      ),
    }
  figures['gradient_norms'] = Figure(
    _draw_norms, _norms(experiment.train_step), experiment.train_data
  )
  figures['gradients_by_step'] = Figure(
    lambda logged: draw.norms_by_step(
      logged['step'],
      logged['groups'].get(NORMS, {}),
      gradients.VANISHING,
      gradients.EXPLODING,
    ),
    history=True,
  )
  return experiment._replace(
    train_step=_with_norms_by_layer(experiment.train_step),
    evals=evals,
    figures=figures,
    metrics={'dead_units': DEAD_UNITS, **experiment.metrics},
  )


def _numbered(found: list[tuple[str, Any]]) -> dict[str, Any]:
  """By name with the place in the net in front, as JAX sorts what it is given."""
  return {f'{i:03d} {name}': value for i, (name, value) in enumerate(found)}


def named(tree: Mapping[str, Any]) -> dict[str, Any]:
  """What `histograms` computes, by name alone, in the order of the net.

  A name that comes again gets a number.
  """
  found: dict[str, Any] = {}
  for key, value in sorted(tree.items()):
    name = again = key.partition(' ')[2]
    count = 1
    while again in found:
      count += 1
      again = f'{name} ({count})'
    found[again] = value
  return found


def histograms(step: Callable) -> Callable[[TrainState, Any, Any], dict[str, Any]]:
  """(state, key, batch) -> an `operations.Histogram` a layer, see `named`.

  Args:
    step: (state, batch) -> anything, as an evaluation or a function of a model.
  """

  def compute(state: TrainState, key: Any, batch: Any) -> dict[str, Any]:
    del key
    _, taps = operations.tapped('activation', step)(state, batch)
    found = []
    for tap, values in taps:
      name = tap.layer or 'input'
      if not tap.stacked:
        found.append((name, values))
        continue
      for turn, one in enumerate(_turns(values)):
        found.append((f'{name} [{turn}]', one))
    return _numbered(found)

  return compute


def _turns(stacked: operations.Histogram) -> list[operations.Histogram]:
  """Those of every turn of a loop; of loops within loops all together."""
  axes, turns = stacked.low.ndim, stacked.low.size
  flat = jax.tree.map(lambda x: x.reshape(turns, *x.shape[axes:]), stacked)
  take = lambda turn: jax.tree.map(lambda x: x[turn], flat)
  return [take(turn) for turn in range(turns)]


def _watched(evaluation: Eval) -> Eval:
  """The evaluation, whose pass also finds what ReLUs are on."""

  def step(state: TrainState, batch: Batch) -> Metrics:
    sums, taps = operations.tapped('relu', evaluation.step)(state, batch)
    by_place: dict[tuple[str, str], Array] = {}
    for tap, on in taps:  # A step that calls the model twice has every layer twice.
      place = tap.layer or tap.where, str(on.shape)
      by_place[place] = on | by_place[place] if place in by_place else on
    if not by_place:
      return sums
    on = [(name, x.astype(jnp.int32)) for (name, _), x in by_place.items()]
    return {**sums, ON: _numbered(on)}

  def summarize(sums: Metrics) -> Mapping[str, Any]:
    own = {name: x for name, x in sums.items() if name != ON}
    if ON not in sums:
      return evaluation.summarize(own)
    count = lambda on: ((on == 0).sum(), jnp.asarray(on.size))
    units = {name: count(on) for name, on in sums[ON].items()}
    dead, total = (sum(x[i] for x in units.values()) for i in range(2))
    share = dead / jnp.asarray(total, jnp.float32)
    return {**evaluation.summarize(own), 'dead_units': share, 'units': units}

  return evaluation._replace(step=step, summarize=summarize)


def _with_norms_by_layer(train_step: Callable) -> Callable:
  """The train step, with the norm of the gradient of each layer among its metrics.

  A layer is what lies in one folder of the parameters. A norm that is not finite, as of
  a step that float16 skips, counts nothing; one above 1e30 counts as that.
  """

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    new, sums, norms = with_norms(train_step, state, batch)(state, batch)
    layers: dict[str, list[Array]] = {}
    for path, norm in norms.items():
      if path.startswith(gradients.PREFIX):
        path = path.removeprefix(gradients.PREFIX)
        layers.setdefault(path.rpartition('/')[0] or path, []).append(norm)
    found = {}
    for layer, parts in layers.items():
      norm = global_norm(parts)
      finite = jnp.isfinite(norm)
      norm = jnp.where(finite, jnp.minimum(norm, _MOST), 0)
      found[layer] = Mean(norm, finite.astype(norm.dtype))
    return new, {**sums, NORMS: found} if found else sums

  return step


def _norms(train_step: Callable) -> Callable[[TrainState, Any, Batch], dict[str, Any]]:
  """(state, key, batch) -> the norm of the gradient of each tensor."""

  def compute(state: TrainState, key: Any, batch: Batch) -> dict[str, Any]:
    del key
    _, _, norms = with_norms(train_step, state, batch)(state, batch)
    prefix = gradients.PREFIX
    return _numbered(
      [(k.removeprefix(prefix), x) for k, x in norms.items() if k.startswith(prefix)]
    )

  return compute


def _draw_norms(tree: Mapping[str, Any]) -> Any:
  norms = {name: float(x) for name, x in named(tree).items()}
  labels = {name: gradients.label(norm) for name, norm in norms.items()}
  bad = sum(map(bool, labels.values()))
  title = f'{bad} of {len(norms)} gradients are zero, vanishing or exploding'
  if not norms:
    title = 'The train step names no gradients: steps.watch does'
  return draw.gradient_norms(
    norms, labels, gradients.VANISHING, gradients.EXPLODING, title
  )
