"""What every model with a code for its images shows: pictures of codes and images.

`figures` takes an encoder and a decoder as pure functions; how they learn is the
experiment's.
"""

from typing import Callable, Mapping

import jax
import jax.numpy as jnp

from dlx import figures as draw
from dlx import losses
from dlx.data.batches.resident import InOrder
from dlx.data.sets.images import ImageData
from dlx.data.sources import indexed
from dlx.experiment import Field, Figure, Function
from dlx.metrics.representation import principal_components
from dlx.sampling.interpolation import slerp
from dlx.state import Array, Batch, Key, Metric, TrainState, seed_keys

# (state, raw batch, keys [B]) -> what is read, mean and log variance of its code.
Encode = Callable[[TrainState, Batch, Key], tuple[Array, Array, Array]]


def _nats(title: str, better: str | None, meaning: str) -> Metric:
  return Metric(title, better, meaning, 'nats an image', 'loss')


# What the terms of a variational bound are reported as.
ELBO = {
  'loss': _nats(
    'Loss', 'lower', 'Mean of the reconstruction term and beta times the KL.'
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


def functions(
  data: ImageData,
  latents: int,
  encode: Encode,
  decode: Callable[[TrainState, Array], Array],
  elbo: Callable[[TrainState, Batch, Key], Array] | None,
) -> dict[str, Function]:
  """`encode`, `decode`, `reconstruct`, `sample` and `score`.

  Args:
    data: whose images, as read, go in.
    latents: width of the code, standard normal before anything is seen.
    encode: see Encode.
    decode: (state, codes [B, latents]) -> images in [0, 1].
    elbo: (state, raw batch, keys [B]) -> a lower bound of the log-likelihood, by one
      draw of the code, nats [B]; None: there is none, and no `score`.
  """
  image = Field('image', data.shape, 'uint8', data.max_value)
  seed = Field('seed', (), 'uint32')
  made = Field('image', data.shape, 'float32')
  latent = Field('latent', (latents,), 'float32')
  raw = {'image': image, 'seed': seed}

  def encoded(state, inputs):
    read, mean, log_var = encode(state, inputs, seed_keys(inputs['seed']))
    return {'latent': mean, 'log_variance': log_var, 'read': read}

  def decoded(state, inputs):
    return {'image': decode(state, inputs['latent'])}

  def reconstructed(state, inputs):
    found = encoded(state, inputs)
    return {**decoded(state, found), 'read': found['read']}

  def sampled(state, inputs):
    normal = lambda key: jax.random.normal(key, (latents,))
    return decoded(state, {'latent': jax.vmap(normal)(seed_keys(inputs['seed']))})

  def scored(state, inputs):
    assert elbo is not None
    return {'elbo': elbo(state, inputs, seed_keys(inputs['seed']))}

  score = {'score': Function(scored, raw, {'elbo': Field('number', (), 'float32')})}
  code = {'latent': latent, 'log_variance': latent, 'read': made}
  return {
    'encode': Function(encoded, raw, code),
    'decode': Function(decoded, {'latent': latent}, {'image': made}),
    'reconstruct': Function(reconstructed, raw, {'image': made, 'read': made}),
    'sample': Function(sampled, {'seed': seed}, {'image': made}),
    **(score if elbo is not None else {}),
  }


def figures(data: ImageData, functions: Mapping[str, Function]) -> Mapping[str, Figure]:
  """`reconstructions`, `samples`, `interpolation` and `latents`.

  Args:
    data: of which the first 1000 test images are seen.
    functions: those of `functions`.
  """
  first = InOrder(indexed(data.test, 1000), min(1000, data.test.size or 1000))
  call = {name: function.call for name, function in functions.items()}

  def raw(batch, count=None):
    seed_B = batch['index'][:count].astype(jnp.uint32)
    return {'image': batch['image'][:count], 'seed': seed_B}

  def reconstructions(state, key, batch):
    del key
    found = call['reconstruct'](state, raw(batch, 16))
    return jnp.stack([found['read'], found['image']], 1)

  def samples(state, key, batch):
    del batch
    return call['sample'](state, {'seed': jax.random.bits(key, (64,))})['image']

  def interpolation(state, key, batch):
    del key
    mean = call['encode'](state, raw(batch, 12))['latent']
    path_NSD = slerp(mean[:6], mean[6:], jnp.linspace(0, 1, 9), norm='elliptic')
    return call['decode'](state, {'latent': path_NSD.reshape(-1, mean.shape[1])})[
      'image'
    ]

  def codes(state, key, batch):
    del key
    found = call['encode'](state, raw(batch))
    mean, log_var = found['latent'], found['log_variance']
    kl_L = losses.gaussian_kl_terms(mean, log_var).mean(0)
    return {'points': principal_components(mean), 'kl': kl_L, 'label': batch['label']}

  def draw_codes(tree):
    return draw.codes(tree['points'], tree['kl'], tree['label'], data.class_names)

  def grid(columns, title, compute, batches=None):
    def show(image):
      image = image.reshape(-1, *data.shape)
      return draw.image_grid(image, columns=columns, title=title)

    return Figure(show, compute, batches)

  between = 'Between the codes of two images, on a great circle'
  return {
    'reconstructions': grid(
      8, 'What is read, and its reconstruction, in turn', reconstructions, first
    ),
    'samples': grid(8, 'Decoded draws of the prior', samples),
    'interpolation': grid(9, between, interpolation, first),
    'latents': Figure(draw_codes, codes, first),
  }
