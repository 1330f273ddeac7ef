"""The short path: one model + one loss + one optimiser = an Experiment.

Everything else (two players, teachers, queues, carried state) writes its own
`train_step` in the experiment file from the parts in dlx/train/steps.py.
"""

from typing import Any, Callable, Mapping

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import optax

from dlx import optim
from dlx.data.dataset import Dataset
from dlx.experiment import LEARNT, Config, Eval, Experiment, Figure, Function, Overfit
from dlx.state import (
  Array,
  Batch,
  Key,
  Mean,
  Metric,
  Metrics,
  PyTree,
  TrainState,
  create,
  mean,
  ratios,
  stream,
)
from dlx.train import curves, loss_scale, sharpness, steps
from dlx.train.averaging import Averaging
from dlx.train.objective import Terms, add_up, joined
from dlx.train.plateau import Plateau

LOSS = Metric(
  'Loss', 'lower', 'Mean over the examples of what training minimises.', group='loss'
)
PENALTY = Metric(
  'Penalty',
  'lower',
  'What training minimises besides the losses of the examples.',
  group='loss',
)
SKIPPED = Metric(
  'Skipped steps',
  'lower',
  'Share of the training steps whose float16 gradients overflowed: such a step changes '
  'the scale of the loss alone.',
  '%',
  'share',
)


def make_predict(
  config: Config,
  model: nn.Module,
  *,
  inputs: str = 'image',
  prepare: Callable[[Batch], Batch] = lambda batch: batch,
) -> Callable[[TrainState, Batch], Any]:
  """(state, raw batch) -> outputs of the model as evaluation sees it, any tree.

  Averaged parameters where `config.ema_decay` is set, running statistics, no dropout.
  """

  def predict(state: TrainState, batch: Batch) -> PyTree:
    params = state.averaged
    variables = {'params': params, **state.model_state}
    outputs = model.apply(variables, prepare(batch)[inputs], train=False)
    return jax.tree.map(jnp.asarray, outputs)

  return predict


def supervised(
  config: Config,
  *,
  model: nn.Module,
  loss: Callable[[Any, Batch], Terms],
  tx: optax.GradientTransformation,
  train_data: Dataset,
  eval_data: Mapping[str, Dataset],
  metrics: Callable[[Any, Batch, Array], Metrics],
  train_metrics: Callable[[Any, Batch, Array], Metrics] | None = None,
  summarize: Callable[[Metrics], Mapping[str, Any]] = ratios,
  inputs: str = 'image',
  prepare: Callable[[Batch], Batch] = lambda batch: batch,
  augment: Callable[[Key, Batch], Batch] | None = None,
  eval_loss: Callable[[Any, Batch], Terms] | None = None,
  penalty: Callable[[PyTree, Mapping[str, PyTree]], Terms] | None = None,
  sown: tuple[str, ...] = ('intermediates', 'losses'),
  rngs: tuple[str, ...] = (),
  frozen: optim.Mask | None = None,
  plateau: Plateau | None = None,
  radius: float | None = None,
  averaging: Averaging | None = None,
  functions: Mapping[str, Function] | None = None,
  figures: Mapping[str, Figure] | None = None,
  declared: Mapping[str, Metric] | None = None,
  headline: tuple[str, ...] | None = None,
  overfit: Overfit | str | None = LEARNT,
  placement: tuple[tuple[str, P], ...] = (),
  flops_per_step: float | None = None,
) -> Experiment:
  """An Experiment with micro-batches, mixed precision, clipping, averages and curves.

  Args:
    config: micro_batches, clip_*, ema_decay, curves and the dtypes are read.
    model: called as `model(x, train=...)`; its own dtype fields set the precision. Its
      outputs are any tree.
    loss: (outputs, batch) -> loss of each example [B], float32 or wider; or several by
      name, each [B] or (weight, [B]): the weighted sum is trained, each is reported.
    tx: the optimiser; clipping by `config` goes before it.
    train_data: endless stream of raw batches.
    eval_data: finite data by split name; batches hold `weight`.
    metrics: (outputs, batch, weight [B]) -> sums for evaluation. 'loss' is added, and
      each loss that has a name.
    train_metrics: the same for training; None: `metrics`.
    summarize: from summed evaluation metrics to what is reported.
    inputs: field of the prepared batch that the model reads.
    prepare: raw batch -> batch (normalisation); in training and evaluation. It may
      change `weight`, e.g. to the tokens of each row.
    augment: (key, prepared batch) -> batch, in training only, on the whole batch
      before it is split, so that micro-batches do not change it.
    eval_loss: what evaluations report as 'loss', like `loss`; None: `loss` itself.
    penalty: (params, sown values by collection) -> scalar, reported as 'penalty', or
      several by name, each a scalar or (weight, scalar): added to the mean loss in
      training alone. Of micro-batches the mean counts.
    sown: collections into which the model may `sow`; they are no part of the state.
    rngs: names of random streams of the model in training, besides 'dropout'.
    frozen: tree of bools, or a function of the parameters that gives one
      (`optim.by_path`): these keep every byte for the whole run.
    plateau: when the learning rate falls; `config.plateau` of an experiment that has
      this group of flags; None: never.
    radius: of sharpness-aware minimisation, see dlx/train/sharpness.py; None: plain
      gradients.
    averaging: when an even average of the weights begins, in place of the exponential
      one; `config.averaging` of an experiment that has this group of flags; None:
      never.
    functions: what the trained model can do.
    figures: pictures of the report.
    declared: declarations of what `metrics`, `summarize` and named losses report; of
      'loss' too where it is more than LOSS.
    headline: see `Experiment`; None: the loss of each split.
    overfit: see `Experiment`.
    placement, flops_per_step: see `Experiment`.

  Raises:
    ConfigError: a plateau of no evaluation; two averages; or, when a step or an
      evaluation is traced, a loss that is not one value an example, a penalty that is
      no scalar, a name that is reported twice.
  """
  train_metrics, plateau = train_metrics or metrics, plateau or Plateau()
  averaging = averaging or Averaging()
  averaging.check(config)
  tx = optim.clip(plateau.wrap(tx), **config.clipping)
  if frozen is not None:  # Outside, so that frozen gradients count in no norm.
    tx = optim.freeze(tx, frozen)
  scaled = config.compute_dtype == 'float16'
  predict = make_predict(config, model, inputs=inputs, prepare=prepare)
  heard = sown if penalty is not None else ()
  held = lambda params: frozen(params) if callable(frozen) else frozen

  def init(key: Key) -> TrainState:
    rows = {
      name: jnp.zeros((1,) + x.shape[1:], x.dtype)
      for name, x in train_data.shapes[0].items()
    }
    variables = model.init(
      jax.random.fold_in(key, 0), prepare(rows)[inputs], train=False
    )
    model_state, params = flax.core.pop(variables, 'params')
    model_state = {k: v for k, v in model_state.items() if k not in sown}
    opt_state = tx.init(params)
    if scaled:
      opt_state = {'tx': opt_state, 'loss_scale': loss_scale.init_loss_scale()}
    decay = config.ema_decay if averaging.start is None else 0.0
    ema = steps.initial_average(params, decay)
    return create(
      params, opt_state, jax.random.fold_in(key, 1), model_state=model_state, ema=ema
    )

  def loss_fn(params, model_state, batch, rng):
    outputs, changed = model.apply(
      {'params': params, **model_state},
      batch[inputs],
      train=True,
      rngs={**{name: stream(rng, name) for name in rngs}, 'dropout': rng},
      mutable=[*model_state, *heard],
    )
    new_state = {k: v for k, v in changed.items() if k not in heard}
    losses_B, terms = add_up(loss(outputs, batch), _rows(batch[inputs]), 'loss')
    weight_B = batch.get('weight', jnp.ones_like(losses_B))
    total, count = (losses_B * weight_B).sum(), weight_B.sum()
    sums = joined(
      {name: mean(term_B, weight_B) for name, term_B in terms.items()},
      train_metrics(outputs, batch, weight_B),
    )
    if penalty is not None:
      found = penalty(params, {k: v for k, v in changed.items() if k in heard})
      value, terms = add_up(found, (), 'penalty')
      total += value * count
      terms = terms or {'penalty': value}
      sums = joined(sums, {name: Mean(x * count, count) for name, x in terms.items()})
    return Mean(total, count), (new_state, sums)

  def averaged(state, new, batch, rng):
    """The state after a step, with the even average and the statistics of it."""
    at = state.step, config.num_steps
    rows = jax.tree.map(lambda x: x[:: config.micro_batches], batch)

    def passed(average):  # As many rows as the step itself passes at once.
      params = jax.tree.map(lambda a, p: a.astype(p.dtype), average, state.params)
      return loss_fn(params, state.model_state, rows, rng)[1][0]

    return new._replace(
      ema=averaging.updated(state.ema, new.params, *at),
      model_state=averaging.statistics(passed, state.ema, new.model_state, *at),
    )

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rng = jax.random.fold_in(state.rng, state.step)
    batch = prepare(batch)
    if augment is not None:
      batch = augment(stream(rng, 'augment'), batch)
    scale = 1.0
    if scaled:  # Over the rows, since sums of a large batch would overflow float16.
      rows = config.batch_size // config.micro_batches
      scale = state.opt_state['loss_scale'].scale / rows
    options = {'micro_batches': config.micro_batches, 'scale': scale}
    at = loss_fn, state.params, state.model_state, batch, rng
    if radius is None:
      grads, model_state, sums = steps.gradients(*at, **options)
    else:
      options |= {'radius': radius, 'frozen': held(state.params)}
      grads, model_state, sums = sharpness.gradients(*at, **options)
    old = state._replace(opt_state=state.opt_state['tx']) if scaled else state
    new = steps.apply(
      tx, old, grads, ema_decay=config.ema_decay, model_state=model_state
    )
    if averaging.start is not None:
      new = averaged(state, new, batch, rng)
    if config.curves:
      counted = grads
      if frozen is not None:
        zeros = jax.tree.map(jnp.zeros_like, grads)
        counted = steps.hold(held(state.params), grads, zeros)
      sums = joined(sums, curves.of(config, tx, old, new, counted))
    return _skip_overflow(state, new, grads, sums) if scaled else (new, sums)

  def eval_step(state: TrainState, batch: Batch) -> Metrics:
    outputs, batch = predict(state, batch), prepare(batch)
    weight_B = batch['weight']
    found = (eval_loss or loss)(outputs, batch)
    losses_B, terms = add_up(found, weight_B.shape, 'loss')
    return joined(
      {'loss': Mean((losses_B * weight_B).sum(), weight_B.sum())},
      {name: mean(term_B, weight_B) for name, term_B in terms.items()},
      metrics(outputs, batch, weight_B),
    )

  experiment = Experiment(
    init=init,
    train_step=train_step,
    train_data=train_data,
    evals={
      name: Eval(eval_step, data, summarize=summarize)
      for name, data in eval_data.items()
    },
    figures=figures or {},
    functions=functions or {},
    metrics={
      'loss': LOSS,
      **({'penalty': PENALTY} if penalty is not None else {}),
      **({'skipped': SKIPPED} if scaled else {}),
      **(declared or {}),
    },
    headline=tuple(f'{x}/loss' for x in eval_data) if headline is None else headline,
    overfit=overfit,
    placement=placement,
    flops_per_step=flops_per_step,
  )
  return plateau.watching(experiment)


def _rows(inputs: PyTree) -> tuple[int]:
  """The shape of one value an example."""
  return (jax.tree.leaves(inputs)[0].shape[0],)


def _skip_overflow(old: TrainState, new: TrainState, grads, sums):
  """float16: a step whose gradients overflowed changes the loss scale and no more.

  Its sums count nothing, but for `skipped`, the share of such steps. At the smallest
  scale there is nothing left to try: the step counts, and ends the run as in float32.
  """
  scale = old.opt_state['loss_scale']
  finite = steps.all_finite(grads)
  taken = finite | (scale.scale <= loss_scale.MIN_LOSS_SCALE)
  kept = steps.where(
    taken,
    new._replace(step=(), rng=(), evaluated=(), stop=()),
    old._replace(step=(), rng=(), evaluated=(), stop=(), opt_state=old.opt_state['tx']),
  )
  sums = jax.tree.map(lambda x: jnp.where(taken, x, jnp.zeros_like(x)), sums)
  skipped = Mean(1 - taken.astype(jnp.float32), jnp.ones(()))
  state = new._replace(
    params=kept.params,
    model_state=kept.model_state,
    ema=kept.ema,
    opt_state={
      'tx': kept.opt_state,
      'loss_scale': loss_scale.next_loss_scale(scale, finite),
    },
  )
  return state, {**sums, 'skipped': skipped}
