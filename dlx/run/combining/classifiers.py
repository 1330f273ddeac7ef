"""Runs whose model names the probability of every class, and what they say of a split.

Of any experiment with a function, `predict` before others, that has one output of the
kind `probabilities`. Evaluated are splits whose batches hold its inputs and `label`.
"""

from typing import Any, Mapping, NamedTuple, Sequence

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images.fixed_views import View
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment, Field, Function
from dlx.run import dispatch, feed, sharding
from dlx.run.opened import VOCABULARY
from dlx.run.records.json_files import read_json
from dlx.state import Array, Batch, TrainState


class Member(NamedTuple):
  """A run: of an ensemble, or the one that is evaluated."""

  workdir: str
  experiment: Experiment
  config: Config


class Classifier(NamedTuple):
  """The function of a run that names probabilities.

  Attributes:
    name: of the function.
    function: itself.
    output: the name of the probabilities among its outputs.
  """

  name: str
  function: Function
  output: str

  @property
  def field(self) -> Field:
    """Of the probabilities."""
    return self.function.outputs[self.output]

  @property
  def image(self) -> str | None:
    """The name of the input that is an image; None: there is none, or several."""
    names = [k for k, x in self.function.inputs.items() if x.kind == 'image']
    return names[0] if len(names) == 1 else None

  def call(self, state: TrainState, batch: Batch, views: Sequence[View]) -> Array:
    """Probabilities [B, K] of a batch: the mean over the views of its images."""
    inputs = {k: batch[k] for k in self.function.inputs if k in batch}
    of = lambda inputs: self.function.call(state, inputs)[self.output]
    if not views:
      return of(inputs)
    assert self.image is not None
    name = self.image
    seen = jnp.stack([view(inputs[name]) for view in views])
    # One after the other: the program and its memory are those of one view.
    return jax.lax.map(lambda x: of({**inputs, name: x}), seen).mean(0)


class Answers(NamedTuple):
  """What a model says of a split, on the host.

  Attributes:
    probs: float32 [N, K].
    label: int [N].
  """

  probs: np.ndarray
  label: np.ndarray

  def rows(self, index: Any) -> 'Answers':
    return Answers(self.probs[index], self.label[index])


def classifier(member: Member, flag: str) -> Classifier:
  """What names the probabilities of classes.

  Args:
    member: the run.
    flag: what asks for it; stands before messages.

  Raises:
    ConfigError: the model has no such function, or one of a whole graph alone.
  """
  functions = member.experiment.functions
  for name in sorted(functions, key=lambda name: name != 'predict'):
    function = functions[name]
    outputs = [k for k, x in function.outputs.items() if x.kind == 'probabilities']
    if len(outputs) == 1 and not function.of_graph:
      return Classifier(name, function, outputs[0])
  raise ConfigError(
    f'{flag} needs probabilities of classes, which no function of {member.workdir} '
    f'gives for one example (it has {", ".join(functions) or "none"}): choose a run '
    'that classifies.'
  )


def splits(member: Member, found: Classifier) -> list[str]:
  """Evaluations whose batches have what the function reads, and the true classes."""

  def fits(shapes: Mapping[str, Any]) -> bool:
    label = shapes.get('label')
    if label is None or label.ndim != 1 or not jnp.issubdtype(label.dtype, jnp.integer):
      return False
    return all(
      _like(x, shapes[k].shape[1:]) if k in shapes else x.default is not None
      for k, x in found.function.inputs.items()
    )

  evals = member.experiment.evals
  fitting = [k for k, e in evals.items() if fits(e.data.shapes[0])]
  if not fitting:
    raise ConfigError(
      f'No evaluation of {member.workdir} holds {", ".join(found.function.inputs)} and '
      f'label (it has {", ".join(evals) or "none"}): {found.name} cannot be scored.'
    )
  return fitting


def _like(field: Field, shape: tuple[int, ...]) -> bool:
  return len(field.shape) == len(shape) and all(
    isinstance(n, str) or n == m for n, m in zip(field.shape, shape, strict=True)
  )


def check_same(first: Member, other: Member, flag: str):
  """Whether two runs answer the same question about the same examples.

  Raises:
    ConfigError: another data set, other inputs, or other classes; one line.
  """
  a, b = (classifier(x, flag.rstrip('=')) for x in (first, other))
  wide = (
    'float64' in (x.config.compute_dtype, x.config.param_dtype) for x in (first, other)
  )
  told = {
    'the data set': [_data_set(x) for x in (first, other)],
    'the classes': [(*x.field.shape, *x.field.names) for x in (a, b)],
    'the inputs': [_told(x.function.inputs) for x in (a, b)],
    'the vocabulary': [_vocabulary(first), _vocabulary(other)],
    'float64': list(wide),
  }
  for what, (here, there) in told.items():
    if here != there:
      raise ConfigError(
        f'{flag}{other.workdir} is not allowed beside {first.workdir}: {what} must be '
        f'the same, and {_short(there)} is not {_short(here)}.'
      )


def check_held_out(first: Member, other: Member, flag: str):
  """Raises ConfigError where a member may have learnt what the first run held out."""
  here, there = (x.config.validation for x in (first, other))
  if here != there:
    raise ConfigError(
      f'{flag}{other.workdir} is not allowed: it held out --config.validation={there} '
      f'of the training examples and {first.workdir} {here}, so that it may know those '
      'by which is chosen: take runs of one value.'
    )


def _data_set(member: Member) -> str:
  """Its name: as the config says, else as the source of the first evaluation does."""
  named = getattr(member.config, 'dataset', None)
  data = [e.data for e in member.experiment.evals.values()]
  source = getattr(data[0], 'source', None) if data else None
  return named or getattr(source, 'name', 'one without a name')


def _told(fields: Mapping[str, Field]) -> list[str]:
  return [
    f'{k} {x.kind} {x.dtype}{list(x.shape)}'
    + f' up to {x.max_value}' * (x.kind == 'image')
    for k, x in sorted(fields.items())
  ]


def _vocabulary(member: Member) -> Any:
  """The words that the run has kept; None: it has none."""
  path = epath.Path(member.workdir) / VOCABULARY
  return read_json(path) if path.exists() else None


def _short(value: Any) -> str:
  text = ', '.join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
  return text if len(text) <= 80 else f'{text[:77]}...'


class Reader:
  """What one model says of the splits of a run; compiled once, for many weights."""

  def __init__(
    self,
    found: Classifier,
    experiment: Experiment,
    data: Mapping[int, feed.Placed],
    mesh: Any,
    views: Sequence[View] = (),
  ):
    """Compiles nothing.

    Args:
      found: of the model that answers.
      experiment: whose evaluations are read.
      data: of them, by the id of the Dataset.
      mesh: on which they lie.
      views: of each image; (): the image alone.
    """
    self._evals, self._data = experiment.evals, data
    batches = {k: sharding.of_batches(mesh, e.data)[0] for k, e in self._evals.items()}

    def answers(split: str, state: TrainState, read: Any, i: Array):
      """Of batch i: probabilities, labels, and which rows count."""
      batch = read
      if (placed := data[id(self._evals[split].data)]).arrays is not None:
        batch = dispatch.get_batch(placed.dataset, read, i, 0)
        batch = jax.lax.with_sharding_constraint(batch, batches[split])
      label = batch['label']
      weight = batch.get('weight', jnp.ones(label.shape))
      return found.call(state, batch, views).astype(jnp.float32), label, weight

    self._answers = jax.jit(
      sharding.traced_under(mesh, answers),
      static_argnums=0,
      out_shardings=sharding.replicated(mesh),
    )

  def __call__(self, state: TrainState, split: str) -> Answers:
    """All answers of a split, in its order; rows that fill up batches are left out."""
    placed = self._data[id(self._evals[split].data)]
    count = placed.dataset.num_batches(placed.loaded.data)
    assert count is not None
    source = None if placed.arrays is not None else feed.stream(placed, 0, count)
    parts = []
    try:
      for i in range(count):
        read = placed.arrays if source is None else next(source)
        found = jax.device_get(self._answers(split, state, read, np.int32(i)))
        parts.append([x[found[2] > 0] for x in found[:2]])
    finally:
      if source is not None:
        source.close()
    probs, label = (np.concatenate(x) for x in zip(*parts, strict=True))
    return Answers(probs, label)
