"""Views of what the score of a class depends on: a map a picture."""

import functools
from typing import Any, Callable, NamedTuple

import jax
import numpy as np

from dlx.figures import maps as draw
from dlx.inspect.maps import gradients, randomised
from dlx.inspect.maps.occlusion import occlusion
from dlx.run.tables import Table
from launch.inspection.asked import Asked, View, layer_or_last, numbers, said

SHOWN = 8  # Pictures of the check by shuffled weights.


class Method(NamedTuple):
  """Attributes:
  title: of figures.
  explain: (model, [layer,] state, image_BHWC, class_B, **options) -> [B, H, W].
  of_layer: whether it takes a layer.
  signed: whether maps have a sign.
  keyed: whether it takes a key.
  """

  title: str
  explain: Callable[..., Any]
  of_layer: bool = False
  signed: bool = False
  keyed: bool = False


METHODS = {
  'grad_cam': Method('Grad-CAM', gradients.grad_cam, of_layer=True),
  'grad_cam_pp': Method('Grad-CAM++', gradients.grad_cam_pp, of_layer=True),
  'guided_grad_cam': Method(
    'Guided Grad-CAM', gradients.guided_grad_cam, of_layer=True
  ),
  'saliency': Method('Absolute gradient', gradients.saliency),
  'smooth_grad': Method('SmoothGrad', gradients.smooth_grad, keyed=True),
  'integrated_gradients': Method(
    'Integrated gradients', gradients.integrated_gradients, signed=True
  ),
  'occlusion': Method('Loss of probability where hidden', occlusion, signed=True),
}


def view(name: str, asked: Asked) -> View:
  """Maps of a method for the pictures.

  Raises:
    ConfigError: no such class or layer, or a model without what the method needs.
  """
  method, model, image = METHODS[name], asked.model, asked.image_BHWC
  probabilities = asked.probabilities()
  class_B = asked.classes(probabilities)
  explain = functools.partial(method.explain, model)
  layer = layer_or_last(asked, class_B) if method.of_layer else None
  if layer is not None:
    explain = functools.partial(explain, layer)
  options = {'key': asked.key} if method.keyed else {}
  compiled = jax.jit(lambda state, x, k: explain(state, x, k, **options))
  classes = numbers(class_B)
  maps = np.asarray(compiled(asked.state, image, classes))
  of = f' of {layer.name}' if layer is not None else ''
  what = 'probability' if name == 'occlusion' else model.score_kind
  title = f'{method.title}{of}'
  lead = [f'{title}, by the {what} of the class that is named under each map.']
  if empty := int((maps == 0).all((1, 2)).sum()):
    lead.append(f'{empty} of {len(maps)} maps are 0 everywhere.')
  figure = draw.explanations(
    image,
    maps,
    asked.captions(),
    said(class_B, probabilities, model.classes),
    signed=method.signed,
    title=title,
  )
  figures, tables = {name: figure}, []
  if name == 'integrated_gradients':
    tables.append(_completeness(asked, image, classes, maps))
  if asked.sanity:
    few, of_few = image[:SHOWN], classes[:SHOWN]
    told = list(
      randomised.randomised(
        model, asked.state, lambda state: compiled(state, few, of_few), asked.key
      )
    )
    figures['sanity'] = _cascade(few, maps[:SHOWN], told, method)
    tables.append(_correlations(told))
    last = told[-1].correlation_B.mean() if told else 1.0
    lead.append(
      f'With all weights shuffled the maps have a rank correlation of {last:.2f} with '
      'those of the trained model.'
    )
  arrays = {'map': maps, 'class': class_B, 'probabilities': probabilities}
  return View(method.title, lead, figures, tables, arrays)


def _completeness(asked: Asked, image: Any, classes: Any, maps: np.ndarray) -> Table:
  found = jax.jit(functools.partial(gradients.completeness, asked.model))(
    asked.state, image, classes, maps
  )
  total, gain = (np.asarray(x) for x in found)
  rows = [
    (name, f'{a:.4f}', f'{b:.4f}', f'{a - b:+.4f}')
    for name, a, b in zip(asked.pictures.names, total, gain, strict=True)
  ]
  return Table(
    'Completeness',
    ('picture', 'sum of the map', 'score less that of black', 'difference'),
    rows,
    f'{gradients.STEPS} points of the midpoint rule.',
  )


def _correlations(told: list[randomised.Changed]) -> Table:
  rows = [
    (one.layer, f'{one.correlation_B.mean():.3f}', f'{one.correlation_B.std():.3f}')
    for one in told
  ]
  return Table(
    'Weights shuffled from the last layer to the first',
    ('shuffled up to', 'rank correlation', 'sd over pictures'),
    rows,
    "Spearman's, of absolute maps with those of the trained model (arXiv:1810.03292); "
    'near 1: the map shows the picture, not what was learnt.',
  )


def _cascade(image, maps, told: list[randomised.Changed], method: Method) -> Any:
  # Many layers: those that are shown lie evenly between the last and the first.
  chosen = sorted({round(i) for i in np.linspace(0, len(told) - 1, min(len(told), 8))})
  names = ['trained']
  for one in (told[i] for i in chosen):
    short = '/'.join(one.layer.split('/')[-2:])
    names.append(f'{short}  {one.correlation_B.mean():.2f}')
  shown = [maps, *(told[i].map_BHW for i in chosen)]
  return draw.cascade(
    image, shown, names, signed=method.signed, title='Weights shuffled up to a layer'
  )
