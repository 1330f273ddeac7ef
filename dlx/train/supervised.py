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
from dlx.experiment import Config, Eval, Experiment, Figure, Function
from dlx.state import (
  Array,
  Batch,
  Key,
  Mean,
  Metric,
  Metrics,
  TrainState,
  create,
  ratios,
  stream,
)
from dlx.train import loss_scale, steps

LOSS = Metric(
  'Loss', 'lower', 'Mean over the examples of what training minimises.', group='loss'
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
) -> Callable[[TrainState, Batch], Array]:
  """(state, raw batch) -> outputs of the model as evaluation sees it.

  Averaged parameters where `config.ema_decay` is set, running statistics, no dropout.
  """

  def predict(state: TrainState, batch: Batch) -> Array:
    params = state.averaged
    variables = {'params': params, **state.model_state}
    return jnp.asarray(model.apply(variables, prepare(batch)[inputs], train=False))

  return predict


def supervised(
  config: Config,
  *,
  model: nn.Module,
  loss: Callable[[Array, Batch], Array],
  tx: optax.GradientTransformation,
  train_data: Dataset,
  eval_data: Mapping[str, Dataset],
  metrics: Callable[[Array, Batch, Array], Metrics],
  train_metrics: Callable[[Array, Batch, Array], Metrics] | None = None,
  summarize: Callable[[Metrics], Mapping[str, Any]] = ratios,
  inputs: str = 'image',
  prepare: Callable[[Batch], Batch] = lambda batch: batch,
  augment: Callable[[Key, Batch], Batch] | None = None,
  eval_loss: Callable[[Array, Batch], Array] | None = None,
  frozen: optim.Mask | None = None,
  functions: Mapping[str, Function] | None = None,
  figures: Mapping[str, Figure] | None = None,
  declared: Mapping[str, Metric] | None = None,
  headline: tuple[str, ...] | None = None,
  overfit: tuple[str, float] | None = ('loss', 0.05),
  placement: tuple[tuple[str, P], ...] = (),
  flops_per_step: float | None = None,
) -> Experiment:
  """An Experiment with micro-batches, mixed precision, clipping and averages.

  Args:
    config: micro_batches, clip_*, ema_decay and the dtypes are read.
    model: called as `model(x, train=...)`; its own dtype fields set the precision.
    loss: (outputs, batch) -> loss of each example [B], float32 or wider.
    tx: the optimiser; clipping by `config` goes before it.
    train_data: endless stream of raw batches.
    eval_data: finite data by split name; batches hold `weight`.
    metrics: (outputs, batch, weight [B]) -> sums for evaluation. 'loss' is added.
    train_metrics: the same for training; None: `metrics`.
    summarize: from summed evaluation metrics to what is reported.
    inputs: field of the prepared batch that the model reads.
    prepare: raw batch -> batch (normalisation); in training and evaluation.
    augment: (key, prepared batch) -> batch, in training only, on the whole batch
      before it is split, so that micro-batches do not change it.
    eval_loss: what evaluations report as 'loss', like `loss`; None: `loss` itself.
    frozen: tree of bools, or a function of the parameters that gives one
      (`optim.by_path`): these keep every byte for the whole run.
    functions: what the trained model can do.
    figures: pictures of the report.
    declared: declarations of what `metrics` and `summarize` report; of 'loss' too where
      it is more than LOSS.
    headline: see `Experiment`; None: the loss of each split.
    overfit: floor for the generic test.
    placement, flops_per_step: see `Experiment`.
  """
  train_metrics = train_metrics or metrics
  tx = optim.clip(tx, **config.clipping)
  if frozen is not None:  # Outside, so that frozen gradients count in no norm.
    tx = optim.freeze(tx, frozen)
  scaled = config.compute_dtype == 'float16'
  predict = make_predict(config, model, inputs=inputs, prepare=prepare)

  def init(key: Key) -> TrainState:
    rows = {
      name: jnp.zeros((1,) + x.shape[1:], x.dtype)
      for name, x in train_data.shapes[0].items()
    }
    variables = model.init(
      jax.random.fold_in(key, 0), prepare(rows)[inputs], train=False
    )
    model_state, params = flax.core.pop(variables, 'params')
    opt_state = tx.init(params)
    if scaled:
      opt_state = {'tx': opt_state, 'loss_scale': loss_scale.init_loss_scale()}
    ema = steps.initial_average(params, config.ema_decay)
    return create(
      params, opt_state, jax.random.fold_in(key, 1), model_state=model_state, ema=ema
    )

  def loss_fn(params, model_state, batch, rng):
    outputs, new_state = model.apply(
      {'params': params, **model_state},
      batch[inputs],
      train=True,
      rngs={'dropout': rng},
      mutable=list(model_state),
    )
    losses_B = loss(outputs, batch)
    weight_B = batch.get('weight', jnp.ones_like(losses_B))
    sums = train_metrics(outputs, batch, weight_B)
    return Mean((losses_B * weight_B).sum(), weight_B.sum()), (new_state, sums)

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    rng = jax.random.fold_in(state.rng, state.step)
    batch = prepare(batch)
    if augment is not None:
      batch = augment(stream(rng, 'augment'), batch)
    scale = 1.0
    if scaled:  # Over the rows, since sums of a large batch would overflow float16.
      rows = config.batch_size // config.micro_batches
      scale = state.opt_state['loss_scale'].scale / rows
    grads, model_state, sums = steps.gradients(
      loss_fn,
      state.params,
      state.model_state,
      batch,
      rng,
      micro_batches=config.micro_batches,
      scale=scale,
    )
    opt_state = state.opt_state['tx'] if scaled else state.opt_state
    new = steps.apply(
      tx,
      state._replace(opt_state=opt_state),
      grads,
      ema_decay=config.ema_decay,
      model_state=model_state,
    )
    return _skip_overflow(state, new, grads, sums) if scaled else (new, sums)

  def eval_step(state: TrainState, batch: Batch) -> Metrics:
    outputs, weight_B = predict(state, batch), batch['weight']
    losses_B = (eval_loss or loss)(outputs, prepare(batch))
    return {
      'loss': Mean((losses_B * weight_B).sum(), weight_B.sum()),
      **metrics(outputs, prepare(batch), weight_B),
    }

  return Experiment(
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
      **(declared or {}),
      **({'skipped': SKIPPED} if scaled else {}),
    },
    headline=tuple(f'{x}/loss' for x in eval_data) if headline is None else headline,
    overfit=overfit,
    placement=placement,
    flops_per_step=flops_per_step,
  )


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
