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
from dlx.experiment import Figure
from dlx.metrics.representation import principal_components
from dlx.sampling.interpolation import slerp
from dlx.state import Array, Batch, TrainState

# (state, raw batch) -> what is read, mean and log variance of its code.
Encode = Callable[[TrainState, Batch], tuple[Array, Array, Array]]


def figures(
  data: ImageData,
  encode: Encode,
  decode: Callable[[TrainState, Array], Array],
  latents: int,
) -> Mapping[str, Figure]:
  """`reconstructions`, `samples`, `interpolation` and `latents`.

  Args:
    data: of which the first 1000 test images are seen.
    encode: see Encode; the batch has `index`, the number of each example.
    decode: (state, codes [B, latents]) -> images, or their entries, in [0, 1].
    latents: width of the code, standard normal before anything is seen.
  """
  first = InOrder(indexed(data.test, 1000), min(1000, data.test.size or 1000))

  def reconstructions(state, key, batch):
    del key
    read, mean, _ = encode(state, batch)
    return jnp.stack([read[:16], decode(state, mean[:16])], 1)

  def samples(state, key, batch):
    del batch
    return decode(state, jax.random.normal(key, (64, latents)))

  def interpolation(state, key, batch):
    del key
    _, mean, _ = encode(state, batch)
    path_NSD = slerp(mean[:6], mean[6:12], jnp.linspace(0, 1, 9), norm='elliptic')
    return decode(state, path_NSD.reshape(-1, latents))

  def codes(state, key, batch):
    del key
    _, mean, log_var = encode(state, batch)
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
