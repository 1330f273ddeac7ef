"""Recurrent cells that learn sentences beside each other: names, metrics, optimiser.

The model is `CarriedClassifiers`: of each cell logits, and parameters of its own. The
first cell is the experiment's; names of the others' metrics end in the cell's.
"""

from typing import Any, Callable, Mapping, Sequence

import jax.numpy as jnp
import optax

from dlx import losses, metrics
from dlx.data.sets.sentences import SentenceData
from dlx.data.text import vocabulary
from dlx.experiment import Field, Function
from dlx.layers.recurrent.cells import CELLS
from dlx.models.text_classifier import CarriedClassifiers
from dlx.state import Array, Batch, Mean, Metric, TrainState
from dlx.tasks.classification import class_probabilities, of_classes

# (params, tokens_BT, nudges) -> logits [B, K] by cell.
Logits = Callable[..., Mapping[str, Array]]


def known(cells: Sequence[str]) -> tuple[bool, str]:
  """Whether these can be compared, and what is allowed: for `Config.require`."""
  fits = bool(cells) and set(cells) <= set(CELLS) and len(set(cells)) == len(cells)
  return fits, 'one or more, each once, of ' + ', '.join(CELLS)


def model_of(
  cells: Sequence[str], data: SentenceData, *, embedding: int, features: int, **dtypes
) -> CarriedClassifiers:
  """The model of these cells, by name, for a set of sentences."""
  return CarriedClassifiers(
    cells={name: CELLS[name] for name in cells},
    vocabulary_size=data.vocabulary_size,
    num_outputs=len(data.class_names),
    embedding=embedding,
    features=features,
    **dtypes,
  )


def each_alone(
  cells: Sequence[str], tx: optax.GradientTransformation
) -> optax.GradientTransformation:
  """An optimiser a cell, so that a gradient is clipped by the norm of its cell's."""
  own = lambda params: {name: name.split('_')[0] for name in params}
  return optax.partition(dict.fromkeys(cells, tx), own)


def by_cell(
  cells: Sequence[str], name: str, of: Callable[[str], Any]
) -> dict[str, Any]:
  """`of` of each cell; names of those beside the first end in the cell's."""
  tail = lambda cell: '' if cell == cells[0] else f'_{cell}'
  return {name + tail(cell): of(cell) for cell in cells}


def whole(model: CarriedClassifiers) -> Logits:
  """Logits of whole sentences, from a state of zeros."""

  def logits(params: Any, tokens_BT: Array, nudges: Any = None) -> Mapping[str, Array]:
    length_B = (tokens_BT != vocabulary.PAD).sum(1)
    found: Any = model.apply({'params': params}, tokens_BT, length_B, None, nudges)
    return found[0]

  return logits


def sums(logits: Mapping[str, Array], batch: Batch) -> dict[str, Mean]:
  """`loss` and `accuracy` by cell.

  Args:
    logits: [B, K] by cell, the experiment's first.
    batch: with `label` [B] and, unless all rows count alike, `weight` [B].
  """
  label, weight, cells = batch['label'], batch.get('weight'), tuple(logits)
  loss = lambda cell: metrics.mean(
    losses.softmax_cross_entropy(logits[cell], label), weight
  )
  hits = lambda cell: metrics.accuracy(logits[cell], label, weight)
  return {**by_cell(cells, 'loss', loss), **by_cell(cells, 'accuracy', hits)}


def total_loss(found: Mapping[str, Mean]) -> Mean:
  """Of all cells. They share no parameter: its gradient is that of each one's loss."""
  totals = [x.total for name, x in found.items() if name.startswith('loss')]
  return Mean(jnp.stack(totals).sum(), found['loss'].count)


def titled(cells: Sequence[str], name: str, metric: Metric) -> dict[str, Metric]:
  """A declaration for each cell, named in the title of all but the first."""
  of = lambda cell: (
    metric if cell == cells[0] else metric._replace(title=f'{metric.title}, {cell}')
  )
  return by_cell(cells, name, of)


def declared(cells: Sequence[str], num_classes: int) -> dict[str, Metric]:
  """What `sums` reports."""
  found = of_classes(num_classes)
  return {
    **titled(cells, 'loss', found['loss']),
    **titled(cells, 'accuracy', found['accuracy']),
  }


def predict(logits: Logits, cell: str, data: SentenceData) -> Function:
  """Probabilities of the classes by one cell."""
  tokens = Field(
    'tokens', ('length',), 'int32', vocabulary=data.vocabulary, pad=vocabulary.PAD
  )

  def outputs(state: TrainState, inputs: Mapping[str, Array]) -> Array:
    return logits(state.params, inputs['tokens'])[cell]

  return class_probabilities(outputs, {'tokens': tokens}, data.class_names)
