"""Variational autoencoder (Kingma and Welling, arXiv 1312.6114).

  python -m launch.train --exp=vae
  python -m launch.train --exp=vae --config.dataset=mnist --config.num_steps=4680 \
      --config.features=400 --config.latents=20 --data_dir=DATA

digits (embedded, the default), mnist or any set of images. `targets` says what the
decoder is to predict, and the two figures are not comparable: `binarised`: each pixel
drawn anew from its grey value at every step, in training and test (a bound on the log
probability of binary images), or `grey`: cross-entropy with the grey value itself.
`loss` is what is trained, the reconstruction term and `beta` times the KL, in nats an
image; `elbo` is the evidence lower bound. `beta` = 0 and `sample` = False make a plain
autoencoder, whose code has no variance: no KL is reported, no bound, no score.

Measured: MNIST, binarised, test -ELBO 101.56 nats (sd 0.13, 3 seeds).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.data.sources import indexed
from dlx.models.vae import VAE
from dlx.state import create
from dlx.tasks import reconstruction
from dlx.train import curves, steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 3000  # Optimiser steps of the whole run; 4680: 10 epochs of MNIST.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 1000  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, or a folder's name.
  targets: str = 'binarised'  # Targets of the decoder: binarised pixels, or grey ones.
  features: tuple[int, ...] = (128,)  # Widths of the encoder's hidden layers.
  latents: int = 8  # Width of the code.
  sample: bool = True  # Whether the code is drawn; False: the mean code.
  beta: float = 1.0  # Weight of the KL term in the training loss.
  lr: float = 2e-3  # Largest learning rate of Adam.
  schedule: str = 'cosine'  # Schedule of the learning rate: cosine to 0, or constant.

  def __post_init__(self):
    super().__post_init__()
    self.choice('targets', of=('binarised', 'grey'))
    self.choice('schedule', of=('cosine', 'constant'))
    self.bounds('features', 'latents', least=1)
    self.bounds('beta', least=0)
    self.bounds('lr', above=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'beta')
# The least run that still has every part.
SMALL = Config.small(features=(8,), latents=4)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = VAE(
    features=config.features, latents=config.latents, shape=data.shape, **config.dtypes
  )
  rate = {'cosine': optim.cosine, 'constant': lambda lr, _: optim.constant(lr)}
  schedule = rate[config.schedule](config.lr, config.num_steps)
  tx = optim.clip(optim.adam(schedule), **config.clipping)
  gradients = functools.partial(steps.gradients, micro_batches=config.micro_batches)
  pixels = math.prod(data.shape)
  keys_of = jax.vmap(jax.random.fold_in, (None, 0))

  def init(key):
    image, code = jnp.zeros((1, *data.shape)), jnp.zeros((1, config.latents))
    params = model.init(jax.random.fold_in(key, 0), image, code)['params']
    ema = steps.initial_average(params, config.ema_decay)
    return create(params, tx.init(params), jax.random.fold_in(key, 1), ema=ema)

  def draw_targets(keys_B, batch):
    """What the net reads and predicts, in [0, 1]; one key an image."""
    image = data.to_unit(batch['image'])
    if config.targets == 'grey':
      return image
    return jax.vmap(jax.random.bernoulli)(keys_B, image).astype(jnp.float32)

  def terms(params, keys_B, batch):
    """By name, nats an image [B], by one draw of the code."""
    split = jax.vmap(lambda key: jax.random.split(key, 2))(keys_B)
    target = draw_targets(split[:, 0], batch)
    noise = jax.vmap(lambda key: jax.random.normal(key, (config.latents,)))(split[:, 1])
    noise = noise if config.sample else jnp.zeros_like(noise)
    logits, mean, log_var = _apply(model, params, target, noise)
    reconstruction_B = pixels * losses.sigmoid_binary_cross_entropy(logits, target)
    kl_B = losses.gaussian_kl(mean, log_var)
    found = {'loss': reconstruction_B + config.beta * kl_B}
    if config.sample:
      found['elbo'] = -reconstruction_B - kl_B  # A bound only where a code is drawn.
    if config.sample or config.beta:
      found['kl'] = kl_B
    return {**found, 'reconstruction': reconstruction_B}

  def loss_fn(params, model_state, batch, rng):
    keys_B = keys_of(rng, jnp.arange(batch['label'].shape[0]))
    found = terms(params, keys_B, batch)
    sums = {k: metrics.mean(x_B) for k, x_B in found.items() if k != 'elbo'}
    return sums.pop('loss'), (model_state, sums)

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    grads, _, sums = gradients(loss_fn, state.params, (), batch, rng)
    new = steps.apply(tx, state, grads, ema_decay=config.ema_decay)
    return new, {**sums, **curves.of(config, tx, state, new, grads)}

  def test(state, batch):
    """Noise keyed by the image, the same at every evaluation."""
    keys_B = keys_of(jax.random.key(0), batch['index'])
    found = terms(state.averaged, keys_B, batch)
    return {name: metrics.mean(x_B, batch['weight']) for name, x_B in found.items()}

  def encode(state, batch, keys_B):
    target = draw_targets(keys_B, batch)
    return target, *_apply(model, state.averaged, target, method='encode')

  def elbo(state, batch, keys_B):
    return terms(state.averaged, keys_B, batch)['elbo']

  def decode(state, z_BL):
    return jax.nn.sigmoid(_apply(model, state.averaged, z_BL, method='decode'))

  bound = elbo if config.sample else None

  def least(batch):
    """Of the loss on a batch that is known: the entropy of its targets, drawn anew or
    grey, and what a code costs that says which image it is."""
    image = data.to_unit(batch['image'])
    entropy = pixels * losses.binary_cross_entropy(image, image).mean()
    return entropy + config.beta * jnp.log(len(image))

  functions = reconstruction.functions(data, config.latents, encode, decode, bound)
  test_data = InOrder(indexed(data.test), config.eval_batch_size)
  return experiment.Experiment(
    init,
    train_step,
    training(data.train, config),
    {'test': experiment.Eval(test, test_data)},
    functions=functions,
    metrics=reconstruction.ELBO,
    headline=('test/elbo' if config.sample else 'test/loss', 'test/reconstruction'),
    figures=reconstruction.figures(data, functions),
    overfit=experiment.Overfit(above=4.0, least=least, steps=1000),  # From 28 above.
  )


def _apply(model: VAE, params, *args, **options) -> Any:
  return model.apply({'params': params}, *args, **options)
