"""Views by the name that --what gives them."""

import functools

from launch.inspection import explanations, units
from launch.inspection.asked import Viewer

# Pictures that are looked at where --num says nothing.
FEW, SOME, MANY = 8, 256, 1000

VIEWS: dict[str, Viewer] = {
  'filters': units.filters,
  'features': units.features,
  'activations': units.activations,
  **{name: functools.partial(explanations.view, name) for name in explanations.METHODS},
  'patches': units.patches,
  'rollout': units.rollout,
  'embedding': units.embedding,
}
NUM = {
  'filters': 0,
  'features': 2,
  'activations': SOME,
  'patches': MANY,
  'embedding': MANY,
}
OF_CLASSES = (*explanations.METHODS, 'rollout')  # Those that read --target.
OF_LAYERS = ('filters', 'features', 'patches', 'embedding') + tuple(
  name for name, method in explanations.METHODS.items() if method.of_layer
)
OF_CHANNELS = ('filters', 'features', 'patches')
