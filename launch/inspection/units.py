"""Views of weights, units and features."""

from typing import Any

import jax
import numpy as np

from dlx.errors import ConfigError
from dlx.figures import class_map
from dlx.figures import inside as of_values
from dlx.figures import maps as draw
from dlx.inspect import inside
from dlx.inspect.maps import attention as of_attention
from dlx.inspect.maps import embedding as of_embedding
from dlx.inspect.maps import filters as of_filters
from dlx.inspect.maps import patches as of_patches
from dlx.inspect.maps.model import as_map
from dlx.inspect.maps.naming import Layer
from dlx.run.tables import Table
from launch.inspection.asked import Asked, View, said

GRID = draw.ROWS * draw.COLUMNS
PATCHED = 8  # Channels of patches.
TSNE = 30  # Least number of images for it.


def filters(asked: Asked) -> View:
  """Filters of the first product, or of a layer."""
  found = of_filters.filters(asked.model, asked.state, asked.layer_name)
  count, height, width, inputs = found.weights_NhwC.shape
  # Of many inputs a row a filter.
  chosen = asked.channels(count, GRID if inputs in (1, 3) else draw.ROWS)
  title = f'{found.layer}: {_some(chosen, count, "filters")} of {height} x {width}'
  if inputs > draw.COLUMNS:
    title += f', {draw.COLUMNS} of {inputs} inputs'
  figure = draw.filter_grid(found.weights_NhwC[chosen], chosen, title=title)
  reads = f'{inputs} channels' if inputs > 1 else 'one channel'
  lead = [
    f'{found.layer} has {count} filters of {height} x {width} that read {reads}; red '
    'is above 0 and blue below, on one scale.'
  ]
  if inputs == 3:
    lead = [f'{lead[0].partition(";")[0]}, in colour: grey is 0.']
  return View(
    'Filters', lead, {'filters': figure}, arrays={'weights': found.weights_NhwC}
  )


def features(asked: Asked) -> View:
  """Channels of a layer for each picture."""
  layer = asked.layer or _first_map(asked)
  value = _value(asked, layer)
  figures = {}
  for i, name in enumerate(asked.captions()):
    if value.ndim == 4:
      chosen = asked.channels(value.shape[-1], GRID)
      maps = value[i][..., chosen].transpose(2, 0, 1)
      some = _some(chosen, value.shape[-1], 'channels')
      drawn = draw.feature_maps(maps, chosen, title=f'{layer.name}, {name}: {some}')
      figures[f'features_{i + 1}'] = drawn
  if value.ndim != 4:  # One picture of all: a row an image.
    flat = value.reshape(len(value), -1)
    figures['features'] = draw.units(flat, asked.captions(), title=layer.name)
  alive = (np.abs(value).reshape(-1, value.shape[-1]).max(0) > 0).mean()
  lead = [
    f'{layer.name} gives {" x ".join(map(str, value.shape[1:]))}; {alive:.0%} of its '
    'channels are not 0 everywhere on these pictures. Each map has its own scale.'
  ]
  return View('Feature maps', lead, figures, arrays={'features': value})


def activations(asked: Asked) -> View:
  """The values that every layer gives for the pictures, as histograms."""
  call = inside.histograms(asked.model.answers)
  found = inside.named(jax.jit(call)(asked.state, None, asked.pictures.rows))
  everything = {name: jax.tree.map(np.asarray, x) for name, x in found.items()}
  layers = {name: x for name, x in everything.items() if not np.isnan(x.zero)}
  rows = [
    (name, f'{x.mean:.4g}', f'{x.deviation:.4g}', f'{x.low:.4g}', f'{x.high:.4g}',
     f'{100 * x.zero:.1f}')
    for name, x in layers.items()
  ]  # fmt: skip
  table = Table(
    'What the layers give',
    ('layer', 'mean', 'deviation', 'least', 'largest', 'zeros, %'),
    rows,
    'After the activation, where a layer has one.',
  )
  lead = [f'Values of {len(layers)} layers for {len(asked.pictures.rows)} pictures.']
  if still := [name for name in everything if name not in layers]:
    lead.append(f'In branches that were not taken: {", ".join(still)}.')
  arrays = {
    f'{name}/{part}': value
    for name, x in layers.items()
    for part, value in x._asdict().items()
  }
  figures = {'activations': of_values.activations(layers)}
  return View('Activations', lead, figures, [table], arrays)


def _first_map(asked: Asked) -> Layer:
  """The first layer that gives [B, h, w, C], else the first."""
  layers = {n: x for n, x in asked.model.layers.items() if not x.may_not_run}
  if not layers:
    raise ConfigError('The model has no layers that can be named.')
  maps = [x for x in layers.values() if len(x.shape) == 4]
  return (maps or list(layers.values()))[0]


def _value(asked: Asked, layer: Layer) -> np.ndarray:
  """[B, h, w, C] where it has places, else as it is."""
  model = asked.model
  value = jax.jit(lambda s, x: model.value(layer, s, x))(asked.state, asked.image_BHWC)
  try:
    value = as_map(value, model.size)
  except ConfigError:  # A vector of units.
    value = value.reshape(len(value), -1) if value.ndim > 2 else value
  return np.asarray(value, np.float32)


def patches(asked: Asked) -> View:
  """Patches by which channels of a layer are largest."""
  model = asked.model
  maps = [x for x in model.layers.values() if len(x.shape) == 4 and not x.may_not_run]
  layer = asked.layer or (maps[-1] if maps else _first_map(asked))
  if len(layer.shape) not in (2, 4):
    raise ConfigError(
      f'--layer={layer.name}: what it gives has the shape {list(layer.shape)}: must be '
      '[B, height, width, channels] or [B, units].'
    )
  chosen = asked.channels(layer.shape[-1], PATCHED)
  image = np.asarray(asked.image_BHWC)
  found = of_patches.patches(model, layer, asked.state, image, chosen)
  size = ' x '.join(map(str, found.patch_NKHWC.shape[2:4]))
  figure = draw.strongest_patches(
    found.patch_NKHWC, chosen, title=f'{layer.name}: its strongest patches, {size}'
  )
  lead = [
    f'Of {len(image)} pictures those that make a channel of {layer.name} largest, one '
    f'patch a picture, the strongest first. A unit sees {size} pixels.'
  ]
  arrays = {
    'patch': found.patch_NKHWC,
    'value': found.value_NK,
    'image': found.image_NK,
    'place': found.place_NK2,
  }
  return View('Strongest patches', lead, {'patches': figure}, arrays=arrays)


def rollout(asked: Asked) -> View:
  """Rollout of attention over all blocks, and the heads of the last."""
  model, image = asked.model, asked.image_BHWC
  found = jax.jit(lambda s, x: of_attention.attention(model, s, x))(asked.state, image)
  heads, rolled = (np.asarray(x, np.float32) for x in found)
  patch = model.size[0] // rolled.shape[1]
  large = lambda x: np.kron(x, np.ones((1, patch, patch)))
  probabilities = asked.probabilities()
  classes = asked.classes(probabilities)
  names, told = asked.captions(), said(classes, probabilities, model.classes)
  figures = {
    'rollout': draw.explanations(
      image, large(rolled), names, told, title='Attention rollout over all blocks'
    )
  }
  count = heads.shape[1]
  rows = [image, *(heads[:, i] for i in range(count))]
  figures['heads'] = draw.cascade(
    image,
    [large(x) for x in rows[1:]],
    [f'head {i + 1}' for i in range(count)],
    title='Heads of the last block',
  )
  lead = [
    f'What the token that is read draws from {rolled.shape[1]} x {rolled.shape[2]} '
    'patches: the product of attention over all blocks, half of each the identity '
    '(arXiv:2005.00928).'
  ]
  return View('Attention', lead, figures, arrays={'rollout': rolled, 'heads': heads})


def embedding(asked: Asked) -> View:
  """Features in the plane: principal components, and t-SNE of enough pictures."""
  model, layer = asked.model, asked.layer
  image = np.asarray(asked.image_BHWC)
  features = of_embedding.features(model, asked.state, image, layer)
  plane = of_embedding.principal(features)
  labels, names = asked.pictures.labels, model.classes
  if labels is None:
    labels, told = np.zeros(len(image), int), ['pictures']
  else:
    told = list(names) or [str(k) for k in range(int(labels.max()) + 1)]
  where = f'of {layer.name}' if layer else 'before the last layer'
  shares = ', '.join(f'{100 * share:.0f} %' for share in plane.shares)
  figures: dict[str, Any] = {
    'pca': class_map(
      plane.points_N2, labels, told, title=f'Principal components: {shares}'
    )
  }
  arrays = {'features': features, 'pca': plane.points_N2}
  if len(image) >= TSNE:
    arrays['tsne'] = of_embedding.neighbours(features)
    figures['tsne'] = class_map(arrays['tsne'], labels, told, title='t-SNE')
  lead = [
    f'{len(image)} pictures by the {features.shape[1]} features {where}. Colours are '
    'true classes.'
  ]
  return View('Features in the plane', lead, figures, arrays=arrays)


def _some(chosen: list[int], count: int, what: str) -> str:
  return (
    f'{count} {what}' if len(chosen) == count else f'{len(chosen)} of {count} {what}'
  )
