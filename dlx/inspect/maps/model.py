"""A function of images, opened: its layers by path, its scores and their gradients.

B images, H height, W width, C channels, K classes. Images are floats in [0, 1].
"""

from typing import Any, Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.experiment import Experiment, Function
from dlx.inspect.maps import naming, traced
from dlx.inspect.maps.naming import Layer
from dlx.inspect.maps.softmax import before_softmax
from dlx.state import leaves_by_path

Array = jax.Array
TINY = 1e-30  # Added to a probability before its logarithm.
_NO_GRADIENT = (
  'no gradient passes a loop whose turns are counted as it runs (while_loop): take a '
  'layer behind it, or features or occlusion; or write the loop as a scan.'
)
MOST_DIFFERENCE = 0.02  # Of probabilities, by pixels that are floats; also in bfloat16.


def function_of_images(
  experiment: Experiment, name: str | None = None
) -> tuple[str, Function]:
  """A function whose one input is an image; the first where none is named.

  Raises:
    ConfigError: there is none, or the named one is none.
  """
  functions = experiment.functions
  if name is not None and name not in functions:
    raise ConfigError(
      f'--function={name} is not allowed: must be one of {", ".join(functions)}.'
    )
  for key in functions if name is None else [name]:
    fields = list(functions[key].inputs.values())
    if len(fields) == 1 and fields[0].kind == 'image':
      return key, functions[key]
  told = 'no function of it' if name is None else f'--function={name}'
  raise ConfigError(
    f'The experiment gives no pictures to look at: {told} takes one image and nothing '
    'else: open the run of a model of images.'
  )


class Model:
  """A function of images of one state's structure; traced once, on one row.

  Attributes:
    function: as the experiment states it.
    field: of its image.
    classes: their names; () where it gives no probabilities.
    layers: by name, in the order in which they end; a module after its parts.
    records: of all operations.
    leaves: paths of the leaves of the state.
  """

  def __init__(self, function: Function, state: Any):
    """Traces. Raises ConfigError: the function takes whole numbers alone."""
    ((self._input, self.field),) = function.inputs.items()
    self.function = function
    shape = jax.ShapeDtypeStruct((1, *self.size, self.field.shape[-1]), jnp.float32)
    try:
      found = traced.records(self._call, state, shape)
    except TypeError as error:
      why = str(error).partition('\n')[0]
      raise ConfigError(
        f'{self._input}: pixels between two whole numbers are not allowed by the '
        f'model ({why}): it has no gradient by them.'
      ) from error
    self.records, self.leaves = found.records, list(leaves_by_path(state))
    self._output: str | None = None
    self._logits: int | None = None
    self.classes: tuple[str, ...] = ()
    for place, name in enumerate(sorted(function.outputs)):  # As JAX sorts leaves.
      field = function.outputs[name]
      if self._output is None and field.kind == 'probabilities':
        self._output = name
        self._logits = before_softmax(found, place)
        self.classes = field.names or tuple(map(str, range(int(field.shape[-1]))))
    self._root = naming.root_of(self.records)
    self.layers = naming.layers_of(self.records, self._root)

  @property
  def size(self) -> tuple[int, int]:
    """Height and width of an image."""
    height, width, _ = self.field.shape
    return int(height), int(width)

  def name_of(self, path: str) -> str:
    """Scopes of a record as names of layers have them."""
    return '/'.join(naming.parts(path)[bool(self._root) :])

  @property
  def score_kind(self) -> str:
    """What is explained: 'logit', or 'log-probability' where no softmax is found."""
    return 'log-probability' if self._logits is None else 'logit'

  def layer(self, name: str) -> Layer:
    """One of `layers`. Raises ConfigError with the list of them."""
    if name not in self.layers:
      raise ConfigError(
        f'--layer={name} is not allowed: must be one of {", ".join(self.layers)}.'
      )
    return self.layers[name]

  def unit(self, rows: Any) -> Array:
    """Images as the function takes them, in [0, 1], float32."""
    whole = np.issubdtype(self.field.dtype, np.integer)
    return jnp.asarray(rows, jnp.float32) / (self.field.max_value if whole else 1)

  def _call(self, state: Any, image_BHWC: Any) -> Mapping[str, Array]:
    whole = np.issubdtype(self.field.dtype, np.integer)
    image = image_BHWC * (self.field.max_value if whole else 1)
    return self.function.call(state, {self._input: image}, **self.function.options)

  def answers(self, state: Any, rows: Any) -> Array:
    """Probabilities [B, K] of images as the function takes them."""
    found = self.function.call(state, {self._input: rows}, **self.function.options)
    return found[self._named_output()]

  def probabilities(self, state: Any, image_BHWC: Array) -> Array:
    """[B, K]. Raises ConfigError: the function gives none."""
    return self._call(state, image_BHWC)[self._named_output()]

  def check_floats(self, state: Any, rows: Any):
    """Raises ConfigError where pixels that are floats have other answers."""
    whole = jax.jit(self.answers)(state, rows)
    floats = jax.jit(self.probabilities)(state, self.unit(rows))
    difference = float(jnp.abs(whole - floats).max())
    if not difference < MOST_DIFFERENCE:
      raise ConfigError(
        f'{self._input}: pixels that are floats change probabilities by '
        f'{difference:.2g}: there is no gradient of a function of whole numbers.'
      )

  def _named_output(self) -> str:
    if self._output is None:
      outputs = ', '.join(self.function.outputs)
      raise ConfigError(
        f'The function gives {outputs} and no probabilities: what explains the score '
        'of a class needs a classifier: look at filters, features or patches.'
      )
    return self._output

  def check_ran(self, layer: Layer, state: Any, image_BHWC: Any):
    """Raises ConfigError where a layer does not run for these images."""
    if layer.may_not_run:
      value = jax.jit(self.value, static_argnums=0)(layer, state, image_BHWC)
      check_any(layer.name, value)

  def value(self, layer: Layer, state: Any, image_BHWC: Array) -> Array:
    """What a layer gives, [B, ...]."""
    found = traced.evaluated(self._call, state, image_BHWC, take=[layer.number])
    return found.taken[layer.number].outputs[layer.output][layer.turn]

  def operand(
    self, record: traced.Record, which: int, state: Any, image_BHWC: Array
  ) -> Array:
    """What an operation reads; in front the axes of the loops around it."""
    number = record.number
    found = traced.evaluated(self._call, state, image_BHWC, take=[number])
    return found.taken[number].inputs[which]

  def scores(
    self, state: Any, image_BHWC: Array, class_B: Array, **options: Any
  ) -> tuple[Array, traced.Found]:
    """Score of one class an image, [B], float32: before the softmax, where it is found.

    Args:
      state: of the model.
      image_BHWC: in [0, 1].
      class_B: numbers of classes.
      options: of `traced.evaluated`; what was evaluated is returned, too.
    """
    output = self._named_output()
    logits = [] if self._logits is None else [self._logits]
    take = [*options.pop('take', ()), *logits]
    found = traced.evaluated(self._call, state, image_BHWC, take=take, **options)
    if self._logits is None:
      score_BK = jnp.log(found.outputs[output] + TINY)
    else:
      score_BK = found.taken[self._logits].inputs[0]
    score_BK = score_BK.reshape(found.outputs[output].shape).astype(jnp.float32)
    return jnp.take_along_axis(score_BK, class_B[:, None], 1)[:, 0], found

  def layer_gradient(
    self, layer: Layer, state: Any, image_BHWC: Array, class_B: Array
  ) -> tuple[Array, Array]:
    """What a layer gives, and the gradient of the score by it; both [B, ...].

    Raises ConfigError: no gradient passes a loop that counts its turns as it runs.
    """
    if layer.in_while:
      raise ConfigError(f'--layer={layer.name} is not allowed: {_NO_GRADIENT}')
    take = [layer.number]

    def total(moved):
      add = {layer.number: (layer.output, moved)}
      score_B, found = self.scores(state, image_BHWC, class_B, take=take, add=add)
      return score_B.sum(), found.taken[layer.number].outputs[layer.output]

    whole = jax.eval_shape(
      lambda: traced.evaluated(self._call, state, image_BHWC, take=take).taken
    )[layer.number].outputs[layer.output]
    zero = jnp.zeros(whole.shape, jnp.float32)
    slope, value = _grad(total, has_aux=True)(zero)
    return value[layer.turn].astype(jnp.float32), slope[layer.turn]

  def image_gradient(
    self, state: Any, image_BHWC: Array, class_B: Array, *, guided: bool = False
  ) -> Array:
    """Gradient of the score by the pixels, [B, H, W, C].

    Args:
      state: of the model.
      image_BHWC: in [0, 1].
      class_B: numbers of classes.
      guided: see `traced.evaluated`.

    Raises:
      ConfigError: guided, without a ReLU; a loop that no gradient passes.
    """
    if guided and not any(r.is_relu and r.reads for r in self.records):
      raise ConfigError(
        'Guided gradients are not allowed: the model has no ReLU that they could pass: '
        'take grad_cam, smooth_grad or integrated_gradients.'
      )
    total = lambda x: self.scores(state, x, class_B, guided=guided)[0].sum()
    return _grad(total)(image_BHWC)

  def last_map(self, state: Any, image_BHWC: Array, class_B: Array) -> Layer:
    """The last layer that gives a map by whose places the scores change.

    Of a transformer whose class token is read these are what its last block reads.

    Raises:
      ConfigError: there is none.
    """
    maps = [x for x in self.layers.values() if places(x.shape, self.size)]
    found = [x for x in maps if not x.in_while]
    used = jax.jit(self._used_places, static_argnums=0)(
      tuple(found), state, image_BHWC, class_B
    )
    found = [layer for layer, on in zip(found, used, strict=True) if on]
    if not found:
      raise ConfigError(
        'The scores change with the places of no layer: the layers are '
        f'{", ".join(self.layers)}: take saliency, smooth_grad, integrated_gradients '
        'or occlusion.'
      )
    return found[-1]

  def _used_places(self, layers, state, image_BHWC, class_B) -> list[Array]:
    """Whether the gradient of the score by the places of each layer is not 0."""
    place = {x.number: x.output for x in layers}

    def total(moved):
      add = {n: (output, moved[n]) for n, output in place.items()}
      return self.scores(state, image_BHWC, class_B, add=add)[0].sum()

    taken = jax.eval_shape(
      lambda: traced.evaluated(self._call, state, image_BHWC, take=[*place]).taken
    )
    zeros = {n: jnp.zeros(taken[n].outputs[o].shape) for n, o in place.items()}
    slopes = _grad(total)(zeros)
    return [(as_map(slopes[x.number][x.turn], self.size) != 0).any() for x in layers]


def check_any(name: str, value: Any):
  """Raises ConfigError where a layer, or its weights, gave nothing but nan."""
  if bool(jnp.isnan(value).all()):
    raise ConfigError(
      f'--layer={name} is not allowed for this state and these pictures: it lies in a '
      'branch that is not taken, or in a loop of no turns: name a layer that runs.'
    )


def _grad(function: Callable, **options: Any) -> Callable:
  """`jax.grad`, with one line where a loop has no gradient."""

  def call(x):
    try:
      return jax.grad(function, **options)(x)
    except ValueError as error:
      if 'Reverse-mode differentiation' not in str(error):
        raise
      raise ConfigError(f'The scores are not differentiable: {_NO_GRADIENT}') from error

  return call


def places(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, int] | None:
  """Rows and columns of what a layer gives; None: it has no places.

  Args:
    shape: of it, with an axis of rows: [B, h, w, C], or [B, T, D] of the tokens of
      square patches, with or without a class token in front.
    size: height and width of the image.
  """
  height, width = size
  if len(shape) == 4:
    # Of the proportions of the image: heads of attention have others.
    alike = abs(shape[1] * width / height - shape[2]) <= 2
    return (shape[1], shape[2]) if alike and shape[1] * shape[2] > 1 else None
  if len(shape) != 3:
    return None
  for patch in range(1, min(size) + 1):
    rows, columns = height // patch, width // patch
    tiles = height % patch == 0 and width % patch == 0 and rows * columns > 1
    if tiles and rows * columns in (shape[1], shape[1] - 1):
      return rows, columns
  return None


def as_map(value: Array, size: tuple[int, int]) -> Array:
  """[B, h, w, C] of what a layer gives; a class token is left out. See `places`.

  Raises:
    ConfigError: it has no places.
  """
  grid = places(value.shape, size)
  if grid is None:
    raise ConfigError(
      f'--layer: what it gives has the shape {list(value.shape)}, which is no map of '
      'places: must be [B, height, width, channels], or tokens of square patches.'
    )
  if value.ndim == 3:
    return value[:, value.shape[1] - grid[0] * grid[1] :].reshape(
      value.shape[0], *grid, -1
    )
  return value
