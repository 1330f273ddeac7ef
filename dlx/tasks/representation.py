"""What experiments that learn features share: a loss, a function, pictures.

between_views  a contrastive loss of two views within a batch
encoding       the function `encode`: features of images as read
pictures       views, a map of principal components, the nearest images

Probes of frozen features: probes.py.
"""

from typing import Callable

import jax.numpy as jnp

from dlx import figures
from dlx.data.images.augment import Augment
from dlx.data.images.views import two_views
from dlx.data.sets.images import ImageData
from dlx.experiment import Field, Function
from dlx.experiment import Figure as Picture
from dlx.figures.features import class_map, similarity_histogram
from dlx.losses import contrastive
from dlx.metrics.neighbours import nearest
from dlx.metrics.representation import alignment, principal_components, uniformity
from dlx.models.conv_encoder import EncoderConfig
from dlx.precision import unit
from dlx.state import Array, Key, TrainState
from dlx.tasks.probes import TrainTest


def pictures(
  data: ImageData,
  labelled: TrainTest | None = None,
  *,
  pooled: Callable[[TrainState, Array], Array],
  project: Callable[[TrainState, Array], Array] | None = None,
  view: Augment | None = None,
) -> dict[str, Picture]:
  """The figures of a run that learns features of images.

  `embedding`: test images on the first two principal components of their features.
  `neighbours`: test images and the most similar training images. Where there are
  views, `views` shows some, and `similarity` how projections of pairs of them compare
  with those of different images.

  Args:
    data: what the images are.
    labelled: at most 2000 test and 5000 training images of it are used; None: these.
    pooled: (state, images in [0, 1]) -> features [B, F].
    project: (state, images in [0, 1]) -> what the loss compares, [B, D].
    view: see `two_views`; with `project`.
  """

  if labelled is None:
    labelled = TrainTest(data.train, data.test, num_train=5000, num_test=2000)

  def levels(image):
    return data.to_unit(image)

  def embed(state, key, batch):
    del key
    points = principal_components(pooled(state, levels(batch['test_image'][:2000])))
    return points, batch['test_label'][:2000]

  def find(state, key, batch):
    del key
    query, bank = levels(batch['test_image'][:8]), levels(batch['train_image'][:5000])
    near = nearest(pooled(state, query), pooled(state, bank), k=min(7, bank.shape[0]))
    return jnp.concatenate([query[:, None], bank[near.row_Mk]], 1)

  def draw_neighbours(rows_MkHWC):
    images = rows_MkHWC.reshape(-1, *rows_MkHWC.shape[2:])
    title = 'Test images (left) and their nearest training images'
    return figures.image_grid(images, columns=rows_MkHWC.shape[1], title=title)

  found = {
    'embedding': Picture(
      lambda tree: class_map(tree[0], tree[1], data.class_names), embed, labelled
    ),
    'neighbours': Picture(draw_neighbours, find, labelled),
  }
  if view is None or project is None:
    return found

  def see(state, key, batch):
    del state
    image = levels(batch['test_image'][:8])
    return jnp.concatenate([image, *two_views(view, key, image)])

  def compare(state, key, batch):
    two = two_views(view, key, levels(batch['test_image'][:512]))
    a, b = (unit(project(state, x)) for x in two)
    return (
      (a * b).sum(1),
      (a * jnp.roll(b, 1, 0)).sum(1),
      alignment(a, b),
      uniformity(a),
    )

  def draw_similarity(tree):
    pair, other, aligned, even = tree
    title = f'Alignment {aligned:.3f}, uniformity {even:.2f} (lower is better)'
    return similarity_histogram(pair, other, title=title)

  title = 'Images and two views of each'
  return {
    'views': Picture(lambda x: figures.image_grid(x, title=title), see, labelled),
    'similarity': Picture(draw_similarity, compare, labelled),
    **found,
  }


def encoding(
  data: ImageData, pooled: Callable[[TrainState, Array], Array], encoder: EncoderConfig
) -> Function:
  """The function `encode`: features of images as read.

  Args:
    pooled: (state, images in [0, 1]) -> [B, F].
    encoder: whose last number of channels is F.
  """
  return Function(
    lambda state, inputs: {'features': pooled(state, data.to_unit(inputs['image']))},
    {'image': Field('image', data.shape, 'uint8', data.max_value)},
    {'features': Field('features', (encoder.features[-1],), 'float32')},
  )


def between_views(
  loss: Callable[[Array, Array, float], contrastive.InfoNCE],
  project: Callable[[Array], Array],
  view: Augment,
  key: Key,
  image: Array,
  temperature: float,
) -> Array:
  """Mean loss of telling two views of an image from those of other images.

  Args:
    loss: `losses.nt_xent` or `losses.in_batch_info_nce`.
    project: images -> vectors [B, D], not normalised.
    view: see `two_views`.
    image: in [0, 1].
    temperature: divides the similarities.
  """
  one, two = (unit(project(x)) for x in two_views(view, key, image))
  return loss(one, two, temperature).loss_B.mean()
