"""Gradient descent without anything else: batch, mini-batch or one example at a time.

  python -m launch.train --exp=gradient_descent
  python -m launch.train --exp=gradient_descent --config.batch_size=1 \
      --config.num_steps=43110 --config.lr=0.03
  python -m launch.train --exp=gradient_descent --config.batch_size=1437 \
      --config.num_steps=30 --config.lr=1

The three commands see every training digit 30 times: in mini-batches, one by one, all
at once. At the end the gradient of every training example is taken at the weights that
were found; `whole/noise_16` is the mean squared distance of the gradient of 16 examples
to that of all, and so on (arXiv:1206.5533, section 3.1). `gradient_descent_variants`
compares the three, `batch_size_scaling` uses the fields of momentum and warm-up.

Measured: training loss 0.00421 nats, one by one 0.00059, all at once 0.119.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.data.sources import held_out, sorted_by
from dlx.figures import studies
from dlx.models.mlp import MLP, PLACEMENT
from dlx.state import Metric, ratios
from dlx.tasks.classification import CLASSIFIER, image_classifier, normalised

ROWS = 256  # Examples whose gradients are in memory at once.
SIZES = (1, 4, 16, 64, 256)  # Batches whose noise is measured; divisors of ROWS.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1347  # Optimiser steps of the whole run; 30 epochs of digits.
  batch_size: int = 32  # Examples of one global batch.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  # Whether every epoch has another order of the examples; False: by class in all.
  shuffle: bool = True
  features: tuple[int, ...] = (32,)  # Widths of the hidden layers.
  lr: float = 0.3  # Largest learning rate.
  momentum: float = 0.0  # Share of the last update that is added to the next.
  warmup: float = 0.0  # Share of the steps over which the rate rises from 0.
  final_rate: float = 1.0  # Rate at the end over the largest; a cosine; 1: constant.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('features', least=1)
    self.bounds('lr', above=0)
    self.bounds('momentum', least=0, below=1)
    self.bounds('warmup', 'final_rate', least=0, most=1)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'momentum', 'warmup', 'final_rate')
# The least run that still has every part.
SMALL = Config.small(features=(8,))


def variance(found):
  """Sample variance of vectors, summed over their entries, from sums over them."""
  n = found['count']
  return (found['squares'] - jnp.square(found['vectors']).sum() / n) / (n - 1)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = MLP(widths=config.features, num_outputs=data.num_classes, **config.dtypes)
  prepare = normalised(data)
  rate = optim.warmup_cosine(
    config.lr, config.num_steps, config.warmup * config.num_steps, config.final_rate
  )
  train = data.train
  if config.validation:
    train, _ = held_out(train, config.validation, by_class='label')
  # Two batches of a size at least, or there is no variance.
  sizes = [size for size in SIZES if 2 * size <= (train.size or 2 * ROWS)]

  def loss_of_one(params, image_HWC, label):
    logits_BK = model.apply({'params': params}, image_HWC[None], train=False)
    return losses.softmax_cross_entropy(jnp.asarray(logits_BK), label[None])[0]

  def whole(state, batch):
    """Loss of training examples, and sums of the gradients of batches of them."""
    of_each = jax.vmap(jax.value_and_grad(loss_of_one), (None, 0, 0))
    prepared = prepare(batch)
    loss_R, grads = of_each(state.averaged, prepared['image'], prepared['label'])
    flat = [g.reshape(g.shape[0], -1) for g in jax.tree.leaves(grads)]
    grad_RP = jnp.concatenate(flat, axis=1)
    sums: dict[str, Any] = {'loss': metrics.mean(loss_R, batch['weight'])}
    for size in sizes:
      grad_GP = grad_RP.reshape(-1, size, grad_RP.shape[1]).mean(1)
      full_G = batch['weight'].reshape(-1, size).min(1)  # Of real rows alone.
      sums[f'noise_{size}'] = {
        'count': full_G.sum(),
        'vectors': full_G @ grad_GP,
        'squares': full_G @ jnp.square(grad_GP).sum(1),
      }
    return sums

  def summary(found):
    noise = {f'noise_{size}': variance(found[f'noise_{size}']) for size in sizes}
    return {**ratios({'loss': found['loss']}), **noise}

  def draw(found):
    measured = [float(found[f'noise_{size}']) for size in sizes]
    return studies.over_values(
      sizes,
      {
        'measured': [[x] for x in measured],
        '1 / size': [[measured[0] / size] for size in sizes],
      },
      xlabel='Examples of a batch',
      ylabel='Squared distance of the gradient to its mean',
      title='Noise of the gradient at the weights found',
      log_x=True,
      log_y=True,
    )

  built = image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.sgd(rate, config.momentum),
    train_data=None
    if config.shuffle
    else training(sorted_by(train, 'label'), config, shuffle=False),
    figures={'noise': experiment.Figure(draw, eval='whole')},
    declared={
      f'noise_{size}': Metric(
        f'Gradient noise, {size} example{"s" * (size > 1)}',
        None,
        'Mean over batches of so many training examples of the squared distance of the '
        'gradient to the mean gradient.',
        '',
        'noise',
      )
      for size in sizes
    }
    | {'whole/loss': CLASSIFIER['loss']},
    placement=PLACEMENT,
  )
  of_all = experiment.Eval(whole, InOrder(train, ROWS), summarize=summary)
  return built._replace(evals={**built.evals, 'whole': of_all})
