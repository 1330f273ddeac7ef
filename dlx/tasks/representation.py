"""Pictures of features: views, a map of principal components, neighbours."""

from typing import TYPE_CHECKING, Any, Callable, Sequence

import jax.numpy as jnp
import numpy as np

from dlx.data.images.augment import Augment
from dlx.data.sets.images import ImageData
from dlx.experiment import Figure as Picture
from dlx.figures import images as figures
from dlx.losses.contrastive import EXACT, alignment, two_views, uniformity, unit
from dlx.metrics.neighbours import nearest
from dlx.state import Array, TrainState
from dlx.tasks.probes import TrainTest

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def principal_components(x_NF: Array, count: int = 2) -> Array:
  """The first principal components [N, count] of the rows, by SVD.

  The sign of a component is that which makes its largest weight positive.
  """
  x_NF = x_NF - x_NF.mean(0, keepdims=True)
  _, _, axes_RF = jnp.linalg.svd(x_NF, full_matrices=False)
  axes_cF = axes_RF[:count]
  largest_c1 = jnp.take_along_axis(
    axes_cF, jnp.abs(axes_cF).argmax(1, keepdims=True), 1
  )
  return jnp.dot(x_NF, (axes_cF * jnp.sign(largest_c1)).T, precision=EXACT)


def class_map(
  points_N2: Any,
  label_N: Any,
  class_names: Sequence[str] | None = None,
  *,
  title: str = 'First two principal components',
) -> 'Figure':
  """Points in the plane, coloured by class, each class named at its median.

  Args:
    points_N2: where the examples lie.
    label_N: int, from 0; up to 20 classes have colours of their own.
    class_names: one a class; None: its number.
    title: of the figure.
  """
  import matplotlib

  points, label = np.asarray(points_N2, np.float64), np.asarray(label_N)
  found = sorted(set(label.tolist()))
  names = [str(k) for k in range(found[-1] + 1)] if class_names is None else class_names
  colours = matplotlib.colormaps['tab10' if found[-1] < 10 else 'tab20']
  figure = figures._figure(5.2, 4.6)
  ax = figure.add_subplot()
  for k in found:
    mine = points[label == k]
    colour = colours(k % colours.N)
    ax.scatter(*mine.T, s=7, alpha=0.5, color=colour, linewidths=0)
    ax.annotate(
      str(names[k]),
      tuple(np.median(mine, 0)),
      ha='center',
      va='center',
      fontsize=9,
      fontweight='bold',
      color=figures.INK,
      bbox={'boxstyle': 'round,pad=0.2', 'fc': 'white', 'ec': colour, 'alpha': 0.8},
    )
  ax.set_xlabel('Component 1')
  ax.set_ylabel('Component 2')
  ax.set_aspect('equal', adjustable='datalim')
  figures._style(ax, title)
  return figure


def similarity_histogram(
  pair_B: Any, other_N: Any, *, title: str | None = None
) -> 'Figure':
  """Cosine similarity of two views of one image against that of different images.

  Args:
    pair_B: in [-1, 1].
    other_N: likewise.
    title: None: how often a pair is more similar than a random other.
  """
  pair, other = np.asarray(pair_B, np.float64), np.asarray(other_N, np.float64)
  if title is None:
    below = np.searchsorted(np.sort(other), pair) / other.size
    title = f'Two views are more similar than {100 * below.mean():.1f} % of others'
  figure = figures._figure(5.2, 3.4)
  ax = figure.add_subplot()
  bins = np.linspace(-1, 1, 61).tolist()
  for values, colour, name in (
    (other, figures.RED, 'different images'),
    (pair, figures.BLUE, 'two views of one image'),
  ):
    ax.hist(values, bins, density=True, color=colour, alpha=0.55, label=name)
  ax.set_xlabel('Cosine similarity of projections')
  ax.set_ylabel('Density')
  ax.legend(frameon=False, fontsize=8)
  figures._style(ax, title)
  return figure


def pictures(
  data: ImageData,
  labelled: TrainTest,
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
    labelled: at most 2000 test and 5000 training images of it are used.
    pooled: (state, images in [0, 1]) -> features [B, F].
    project: (state, images in [0, 1]) -> what the loss compares, [B, D].
    view: see `two_views`; with `project`.
  """

  def levels(image):
    return image.astype(jnp.float32) / data.max_value

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
