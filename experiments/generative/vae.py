"""Variational autoencoder (Kingma and Welling, arXiv 1312.6114).

  python -m launch.train --exp=vae
  python -m launch.train --exp=vae --config.dataset=mnist --config.num_steps=4680 \
      --config.features=400 --config.latents=20 --data_dir=DATA

digits (embedded, the default), mnist or any set of images. `targets` says what the
decoder is to predict, and the two figures are not comparable: `binarised`: each pixel
drawn anew from its grey value at every step, in training and test (a bound on the log
probability of binary images), or `grey`: cross-entropy with the grey value itself.
`elbo` is the evidence lower bound in nats an image, `loss` its negative. `beta` = 0 and
`sample` = False make a plain autoencoder. Measured figures stand in
experiments/README.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, figures, losses, optim
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.data.sources import indexed
from dlx.metrics.representation import principal_components
from dlx.models.vae import VAE
from dlx.sampling.interpolation import slerp
from dlx.state import Mean, Metric, create, seed_keys
from dlx.train import steps

Field, Function = experiment.Field, experiment.Function


def _nats(title: str, better: str | None, meaning: str) -> Metric:
  return Metric(title, better, meaning, 'nats an image', 'loss')


METRICS = {
  'loss': _nats(
    'Loss', 'lower', 'Mean over the test images of the negative evidence lower bound.'
  ),
  'train/loss': _nats(
    'Training loss', 'lower', 'Mean of the reconstruction term and beta times the KL.'
  ),
  'elbo': _nats(
    'Evidence lower bound',
    'higher',
    'Mean over the images of a lower bound of the logarithm of the probability of an '
    'image.',
  ),
  'reconstruction': _nats(
    'Reconstruction',
    'lower',
    'Mean over the images of the cross-entropy of the pixels, summed over an image.',
  ),
  'kl': _nats(
    'KL term',
    None,
    'Mean over the images of the divergence of the code from the prior.',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 3000  # Optimiser steps of the whole run; 4680: 10 epochs of MNIST.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 1000  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, or a folder's name.
  targets: str = 'binarised'  # binarised or grey; see the docstring.
  features: tuple[int, ...] = (128,)  # Widths of the encoder's hidden layers.
  latents: int = 8  # Width of the code.
  sample: bool = True  # Draw the code; False: take its mean.
  beta: float = 1.0  # Weight of the KL term in the training loss.
  lr: float = 2e-3  # Largest learning rate of Adam.
  schedule: str = 'cosine'  # cosine to 0, or constant.

  def __post_init__(self):
    super().__post_init__()
    self.choice('targets', of=('binarised', 'grey'))
    self.choice('schedule', of=('cosine', 'constant'))
    self.bounds('features', 'latents', least=1)
    self.bounds('beta', least=0)
    self.bounds('lr', above=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = VAE(
    features=config.features, latents=config.latents, shape=data.shape, **config.dtypes
  )
  rate = {'cosine': optim.cosine, 'constant': lambda lr, _: optim.constant(lr)}
  tx = optim.clip(
    optim.adam(rate[config.schedule](config.lr, config.num_steps)), **config.clipping
  )
  train_data = training(data.train, config)
  test_data = InOrder(indexed(data.test), config.eval_batch_size)

  def draw_targets(keys_B, batch):
    """What the net reads and predicts, in [0, 1]; one key an image."""
    image = data.to_unit(batch['image'])
    if config.targets == 'grey':
      return image
    drawn = jax.vmap(lambda key, p: jax.random.bernoulli(key, p))(keys_B, image)
    return drawn.astype(jnp.float32)

  def bounds(params, keys_B, batch, sample=True):
    """Reconstruction and KL terms of -ELBO, nats an image [B], one draw of the code."""
    split = jax.vmap(lambda key: jax.random.split(key, 2))(keys_B)
    target = draw_targets(split[:, 0], batch)
    noise = jax.vmap(lambda key: jax.random.normal(key, (config.latents,)))(split[:, 1])
    applied: Any = model.apply(
      {'params': params}, target, noise if sample else jnp.zeros_like(noise)
    )
    logits, mean, log_var = applied
    pixels = data.shape[0] * data.shape[1] * data.shape[2]
    reconstruction_B = pixels * losses.sigmoid_binary_cross_entropy(logits, target)
    return reconstruction_B, losses.gaussian_kl(mean, log_var)

  def keys(key, index_B):
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index_B)

  def init(key):
    params = model.init(
      jax.random.fold_in(key, 0),
      jnp.zeros((1, *data.shape)),
      jnp.zeros((1, config.latents)),
    )['params']
    ema = steps.initial_average(params, config.ema_decay)
    return create(params, tx.init(params), jax.random.fold_in(key, 1), ema=ema)

  def loss_fn(params, model_state, batch, rng):
    rows_B = jnp.arange(batch['label'].shape[0])
    reconstruction_B, kl_B = bounds(params, keys(rng, rows_B), batch, config.sample)
    loss_B = reconstruction_B + config.beta * kl_B
    count = jnp.float32(loss_B.shape[0])
    sums = {'reconstruction': reconstruction_B, 'kl': kl_B}
    sums = {name: Mean(x_B.sum(), count) for name, x_B in sums.items()}
    return Mean(loss_B.sum(), count), (model_state, sums)

  def train_step(state, batch):
    grads, _, sums = steps.gradients(
      loss_fn,
      state.params,
      (),
      batch,
      jax.random.fold_in(state.rng, state.step),
      micro_batches=config.micro_batches,
    )
    return steps.apply(tx, state, grads, ema_decay=config.ema_decay), sums

  def test(state, batch):
    """Noise keyed by the image, the same at every evaluation."""
    keys_B = keys(jax.random.key(0), batch['index'])
    reconstruction_B, kl_B = bounds(state.averaged, keys_B, batch, config.sample)
    terms = {
      'loss': reconstruction_B + kl_B,
      'elbo': -reconstruction_B - kl_B,
      'reconstruction': reconstruction_B,
      'kl': kl_B,
    }
    weight_B = batch['weight']
    return {k: Mean((v * weight_B).sum(), weight_B.sum()) for k, v in terms.items()}

  def decode(state, inputs):
    logits: Any = model.apply(
      {'params': state.averaged}, inputs['latent'], method='decode'
    )
    return {'image': jax.nn.sigmoid(logits)}

  def encode(state, inputs):
    """Mean and log-variance of the code, and the image as the net reads an image."""
    target = draw_targets(seed_keys(inputs['seed']), inputs)
    code: Any = model.apply({'params': state.averaged}, target, method='encode')
    return {'latent': code[0], 'log_variance': code[1], 'read': target}

  def reconstruct(state, inputs):
    code = encode(state, inputs)
    return {**decode(state, {'latent': code['latent']}), 'read': code['read']}

  def sample(state, inputs):
    normal = lambda key: jax.random.normal(key, (config.latents,))
    return decode(state, {'latent': jax.vmap(normal)(seed_keys(inputs['seed']))})

  def score(state, inputs):
    """A lower bound of the log-likelihood, by one draw of the code."""
    keys_B = seed_keys(inputs['seed'])
    reconstruction_B, kl_B = bounds(state.averaged, keys_B, inputs, config.sample)
    return {'elbo': -reconstruction_B - kl_B}

  image, seed = Field('image', data.shape, 'uint8'), Field('seed', (), 'uint32')
  made = Field('image', data.shape, 'float32')
  latent = Field('latent', (config.latents,), 'float32')
  code = {'latent': latent, 'log_variance': latent}
  raw = {'image': image, 'seed': seed}
  functions = {
    'encode': Function(encode, raw, {**code, 'read': made}),
    'decode': Function(decode, {'latent': latent}, {'image': made}),
    'reconstruct': Function(reconstruct, raw, {'image': made, 'read': made}),
    'sample': Function(sample, {'seed': seed}, {'image': made}),
    'score': Function(score, raw, {'elbo': Field('number', (), 'float32')}),
  }

  def coded(state, batch):
    seed_B = batch['index'].astype(jnp.uint32)
    return encode(state, {'image': batch['image'], 'seed': seed_B})

  def reconstructions(state, key, batch):
    seed_B = batch['index'][:16].astype(jnp.uint32)
    found = reconstruct(state, {'image': batch['image'][:16], 'seed': seed_B})
    return jnp.stack([found['read'], found['image']], 1)

  def samples(state, key, batch):
    return sample(state, {'seed': jax.random.bits(key, (64,), jnp.uint32)})['image']

  def interpolation(state, key, batch):
    mean = coded(state, batch)['latent']
    z_NSL = slerp(mean[:6], mean[6:12], jnp.linspace(0, 1, 9))
    return decode(state, {'latent': z_NSL.reshape(-1, config.latents)})['image']

  def latents(state, key, batch):
    found = coded(state, batch)
    mean, log_var = found['latent'], found['log_variance']
    kl_L = losses.gaussian_kl_terms(mean, log_var).mean(0)
    return {'points': principal_components(mean), 'kl': kl_L, 'label': batch['label']}

  grid = lambda columns, title: (
    lambda x: figures.image_grid(
      x.reshape(-1, *data.shape), columns=columns, title=title
    )
  )
  first = InOrder(indexed(data.test, 1000), min(1000, data.test.size or 1000))
  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=train_data,
    evals={'test': experiment.Eval(test, test_data)},
    functions=functions,
    metrics=METRICS,
    headline=('test/elbo', 'test/reconstruction'),
    figures={
      'reconstructions': experiment.Figure(
        grid(8, 'What is read, and its reconstruction, in turn'), reconstructions, first
      ),
      'samples': experiment.Figure(grid(8, 'Decoded draws of the prior'), samples),
      'interpolation': experiment.Figure(
        grid(9, 'Between the codes of two images, on a great circle'),
        interpolation,
        first,
      ),
      'latents': experiment.Figure(
        lambda tree: figures.codes(
          tree['points'], tree['kl'], tree['label'], data.class_names
        ),
        latents,
        first,
      ),
    },
    overfit=('reconstruction', 20.0),  # From 44; pixels are drawn anew: 18 is seen.
  )
