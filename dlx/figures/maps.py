"""Pictures of what lies in a model of images: NumPy in, a Figure out. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.images import image_grid, mosaic, weights_grid
from dlx.figures.style import new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 4  # Of a grid of channels.


def coloured(values_BHW: Any, colours: str = 'viridis') -> np.ndarray:
  """[B, H, W, 3] in [0, 1]; each from its least to its largest value."""
  import matplotlib

  x = np.asarray(values_BHW, np.float64)
  low, high = (f(x, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
  x = (x - low) / np.where(high > low, high - low, 1)
  return np.asarray(matplotlib.colormaps[colours](x)[..., :3])


def overlaid(image_BHWC: Any, map_BHW: Any, *, signed: bool = False) -> np.ndarray:
  """Maps in colours over grey images, each on its own scale: [B, H, W, 3] in [0, 1].

  Args:
    image_BHWC: in [0, 1].
    map_BHW: at least 0, dark where it is 0; or signed: blue below 0, red above.
    signed: whether it has a sign.
  """
  import matplotlib

  grey = np.asarray(image_BHWC, np.float64).mean(-1, keepdims=True)
  x = np.asarray(map_BHW, np.float64)
  largest = np.abs(x).max((1, 2), keepdims=True)
  x = x / np.where(largest > 0, largest, 1)
  if signed:
    colour, share = matplotlib.colormaps['RdBu_r']((x + 1) / 2), 0.8
  else:
    colour, share = matplotlib.colormaps['inferno'](np.maximum(x, 0)), 0.65
  return np.clip(share * colour[..., :3] + (1 - share) * grey, 0, 1)


def explanations(
  image_BHWC: Any,
  map_BHW: Any,
  captions: Sequence[str],
  map_captions: Sequence[str],
  *,
  signed: bool = False,
  title: str | None = None,
) -> 'Figure':
  """Each image with its map beside it, four pairs a row.

  Args:
    image_BHWC: in [0, 1], with 1 or 3 channels.
    map_BHW: see `overlaid`.
    captions, map_captions: one an image.
    signed: see `overlaid`.
    title: of the whole.
  """
  maps = overlaid(image_BHWC, map_BHW, signed=signed)
  image = np.broadcast_to(in_colour(image_BHWC), maps.shape)
  tiles = np.stack([image, maps], 1).reshape(-1, *maps.shape[1:])
  texts = [text for pair in zip(captions, map_captions, strict=True) for text in pair]
  return image_grid(tiles, texts, columns=COLUMNS, title=title)


def in_colour(image_BHWC: Any) -> np.ndarray:
  """[B, H, W, 3] of images with any number of channels; of others than 3 the mean."""
  image = np.asarray(image_BHWC, np.float64)
  if image.shape[-1] != 3:
    image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
  return np.clip(image, 0, 1)


def feature_maps(
  maps_NHW: Any, channels: Sequence[int], *, title: str | None = None
) -> 'Figure':
  """Channels of a layer for one image, 8 a row, each on a scale of its own."""
  shown = coloured(maps_NHW)
  return image_grid(shown, [str(k) for k in channels], columns=COLUMNS, title=title)


def units(values_BF: Any, names: Sequence[str], *, title: str) -> 'Figure':
  """What units give, a row a picture, with its name; blue below 0 and red above."""
  values = np.asarray(values_BF, np.float64)
  largest = float(np.abs(values).max()) or 1.0
  figure = new_figure(7.5, 0.9 + 0.3 * len(values))
  ax = figure.add_subplot()
  options: dict[str, Any] = {'vmin': -largest, 'vmax': largest, 'aspect': 'auto'}
  shown = ax.imshow(values, cmap='RdBu_r', interpolation='nearest', **options)
  ax.set_yticks(range(len(values)), list(names))
  ax.set_xlabel('Unit')
  figure.colorbar(shown, ax=ax)
  style_axes(ax, title)
  return figure


def filter_grid(
  weights_NhwC: Any, channels: Sequence[int], *, title: str | None = None
) -> 'Figure':
  """Filters, 8 a row, in colour where they read three channels; of others than one or
  three a row a filter, an input after the other, 8 at most.

  Args:
    weights_NhwC: of outputs.
    channels: their numbers.
    title: of the whole.
  """
  weights = np.asarray(weights_NhwC, np.float64)
  if weights.shape[-1] == 3:
    largest = np.abs(weights).max((1, 2, 3), keepdims=True)
    shown = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)
    return image_grid(shown, [str(k) for k in channels], columns=COLUMNS, title=title)
  if weights.shape[-1] == 1:
    texts = [str(k) for k in channels]
    return weights_grid(weights[..., 0], texts, columns=COLUMNS, title=title)
  inputs = min(weights.shape[-1], COLUMNS)
  few = weights[..., :inputs].transpose(0, 3, 1, 2)
  texts = [f'{k} of {i}' for k in channels for i in range(inputs)]
  return weights_grid(
    few.reshape(-1, *few.shape[2:]), texts, columns=inputs, title=title
  )


def strongest_patches(
  patch_NKHWC: Any, channels: Sequence[int], *, title: str | None = None
) -> 'Figure':
  """A row a channel: the patches by which it is largest, the strongest first."""
  patch = np.asarray(patch_NKHWC, np.float64)
  shown = in_colour(patch.reshape(-1, *patch.shape[2:]))
  shown = shown.reshape(*patch.shape[:-1], 3)
  return mosaic(shown, [f'channel {k}' for k in channels], title=title)


def cascade(
  image_BHWC: Any,
  maps: Sequence[Any],
  names: Sequence[str],
  *,
  signed: bool = False,
  title: str | None = None,
) -> 'Figure':
  """A row of images, then a row of their maps for each state of the model.

  Args:
    image_BHWC: in [0, 1].
    maps: [B, H, W] each.
    names: one a state.
    signed: see `overlaid`.
    title: of the whole.
  """
  rows = [in_colour(image_BHWC)]
  rows += [overlaid(image_BHWC, one, signed=signed) for one in maps]
  return mosaic(np.stack(rows), ['image', *names], title=title)
