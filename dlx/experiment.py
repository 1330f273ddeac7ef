"""An experiment is a set of pure functions; launchers compose them, never look inside.

build(config) -> Experiment              what an experiment file provides
dlx.train.supervised.supervised(...)     the short path: one model, loss and optimiser
dlx.train.members.vectorize              n seeds or members in one program

`Config` and `UNSCALED_DTYPES`, which an experiment file needs too, are dlx.config's.
"""

from typing import Any, Callable, Mapping, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from dlx.config import UNSCALED_DTYPES, Config
from dlx.data.dataset import Dataset
from dlx.state import Array, Batch, Key, Metric, Metrics, PyTree, TrainState, ratios

__all__ = (
  'KINDS',
  'LEARNT',
  'UNSCALED_DTYPES',
  'Config',
  'Eval',
  'Experiment',
  'Field',
  'Figure',
  'Function',
  'Overfit',
  'declared',
  'example_shapes',
)


class Eval(NamedTuple):
  """One evaluation: a pass over a finite data set.

  Attributes:
    step: pure; metrics (Mean or raw sums) of one batch. A batch has `weight` f32[B], 0
      for padding rows, which repeat a real row.
    data: finite; for a sampler, a data set of seeds or labels.
    every: steps between passes; None: `config.eval_every_steps`.
    summarize: pure; from the summed metrics of the pass to what is reported. Numbers,
      and where there are members one of each, are logged; all else (a confusion
      matrix, a tree) reaches figures only.
  """

  step: Callable[[TrainState, Batch], Metrics]
  data: Dataset
  every: int | None = None
  summarize: Callable[[Metrics], Mapping[str, Any]] = ratios


class Figure(NamedTuple):
  """One picture of the report.

  Attributes:
    draw: host, process 0: NumPy tree -> matplotlib Figure, uint8 image HWC or text.
    compute: pure and jitted: (state, key, batch) -> tree. None: `draw` gets the
      summary of the last pass of `eval`.
    data: its first batch is given to `compute`; None: an empty batch is.
    eval: name of the evaluation that is drawn where `compute` is None.
    history: whether `draw` gets what training has logged so far, and no `compute` or
      `eval` is asked: see `dlx.run.records.history`.
  """

  draw: Callable[[Any], Any]
  compute: Callable[[TrainState, Key, Batch], PyTree] | None = None
  data: Dataset | None = None
  eval: str | None = None
  history: bool = False


class Field(NamedTuple):
  """One input or output of a `Function`, for one example, without the batch axis.

  Attributes:
    kind: one of KINDS: tells the host how a file, a text or a number becomes the array,
      and back.
    shape: sizes; a name, e.g. 'length', where the size varies.
    dtype: e.g. 'uint8'.
    max_value: of an image of whole numbers, the pixel that stands for 1.0.
    names: of classes, in their order; () where they have none. Of a column of words its
      values: code k stands for names[k - 1], code 0 for none of them.
    vocabulary: of tokens: data_dir -> what has encode(text) -> numbers and
      decode(numbers) -> text. None: nobody knows what they stand for.
    default: of an input that may be left out; a seed that is left out is 0.
    pad: of tokens, the number that fills up a row from its end and changes no answer,
      so that rows of many lengths need few programs; None: there is none.
    since: of a column of dates the days from 1970-01-01 to the day from which `call`
      counts, which the host takes away in float64; None: it is no date.
  """

  kind: str
  shape: tuple[int | str, ...]
  dtype: str
  max_value: int = 255
  names: tuple[str, ...] = ()
  vocabulary: Callable[[Any], Any] | None = None
  default: float | None = None
  pad: int | None = None
  since: float | None = None


# image: H, W, C, uint8 as read from a file, or float32 in [0, 1]; text: codes of
# characters; tokens: numbers in a vocabulary; row: numbers of a table, or a row a step;
# graph: a field of a whole graph, and then nothing has a batch axis; column: of a
# table, by its name: a number or a date, NaN where it is missing, or int32, the code of
# a word; latent, features: vectors; label: a class; probabilities: one a class; number:
# any real number; seed: uint32, one an example.
KINDS = (
  *('image', 'text', 'tokens', 'row', 'graph', 'column', 'latent', 'features', 'label'),
  *('probabilities', 'number', 'seed'),
)


class Function(NamedTuple):
  """What a trained model can do: predict, encode, decode, sample, generate, score.

  A row of the outputs depends on that row of the inputs alone, whatever else is in
  the batch. Randomness is an input of the kind `seed`.

  Attributes:
    call: pure; (state, inputs by name, **options) -> outputs by name, each with a
      leading batch axis; with the averaged parameters where the run keeps an average.
    inputs: raw, as a user has them; scaling belongs to `call`.
    outputs: likewise.
    options: static, with their defaults: each combination is a program of its own.
  """

  call: Callable[..., Mapping[str, Array]]
  inputs: Mapping[str, Field]
  outputs: Mapping[str, Field]
  options: Mapping[str, Any] = {}

  @property
  def of_graph(self) -> bool:
    """Whether one whole graph is the input: then nothing has a batch axis."""
    return any(field.kind == 'graph' for field in self.inputs.values())

  @property
  def of_table(self) -> bool:
    """Whether the inputs are the columns of a table."""
    return any(field.kind == 'column' for field in self.inputs.values())


def example_shapes(
  fields: Mapping[str, Field], rows: tuple[int, ...], sizes: Mapping[str, int]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and dtypes of inputs or outputs of a `Function`.

  Args:
    fields: by name.
    rows: of the batch; () without a batch axis.
    sizes: of what a field leaves open, by its name.
  """
  size = lambda n: sizes[n] if isinstance(n, str) else n
  return {
    name: jax.ShapeDtypeStruct((*rows, *map(size, field.shape)), field.dtype)
    for name, field in fields.items()
  }


class Overfit(NamedTuple):
  """How well one repeated batch is learnt.

  Attributes:
    metric: of the train step.
    above: how far above the least value there is the metric comes, at most.
    least: batch -> that value: the entropy of what is drawn anew at every step, the
      error of the best predictor. None: 0.
    steps: of the run; None: as whoever asks has time for.
    fields: of the config in that run, of a group a mapping of some of its fields: what
      is switched off for it, such as mixing that draws other labels at every step.
  """

  metric: str = 'loss'
  above: float = 0.05
  least: Callable[[Batch], Array] | None = None
  steps: int | None = None
  fields: Mapping[str, Any] = {}


LEARNT = Overfit()


class Experiment(NamedTuple):
  """The pure functions that a run is made of.

  Attributes:
    init: key -> state. No I/O; works under eval_shape.
    train_step: (state, batch) -> (state, metrics). Adds 1 to `state.step`.
    train_data: the training stream, without an end.
    evals: by split name; metrics are reported as "split/name".
    warm_start: host; (state) -> (state, origin); may read other workdirs, see
      dlx/run/warm_start.py, or fit what is fitted at once. Called once, after the data
      was read and `init`, before step 0 of a fresh workdir; resume never calls it.
      `origin`, as JSON, stands in config.json.
    after_eval: pure; (state, {"split/name": scalar}) -> state. Plateau and early
      stopping live here, so that they resume exactly.
    placement: (pattern on the path of a leaf, spec), before the size rule.
    figures: by name; drawn after the last step.
    overfit: what one repeated batch reaches, for the generic test; a string: why there
      is nothing that it reaches. None: not said, as a fork may leave it.
    flops_per_step: floating-point operations of the model in one optimiser step over
      the global batch, as its formula counts them, a multiply-add two: what utilisation
      is measured by. None: it states none.
    functions: by name, what the trained model can do; evaluations and figures call the
      same ones.
    metrics: declarations by name, or by "split/name" where a name means something else
      in one split: all numbers that `train_step` and the evaluations report, but for
      those of dlx/train/curves.py.
    headline: "split/name" of the numbers that a summary shows, the first first.
    phases: (name, first step) of a run that does one thing after the other.
  """

  init: Callable[[Key], TrainState]
  train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
  train_data: Dataset
  evals: Mapping[str, Eval] = {}
  warm_start: Callable[[TrainState], tuple[TrainState, Mapping[str, Any]]] | None = None
  after_eval: Callable[[TrainState, Mapping[str, Array]], TrainState] | None = None
  placement: tuple[tuple[str, P], ...] = ()
  figures: Mapping[str, Figure] = {}
  overfit: Overfit | str | None = LEARNT
  flops_per_step: float | None = None
  functions: Mapping[str, Function] = {}
  metrics: Mapping[str, Metric] = {}
  headline: tuple[str, ...] = ()
  phases: tuple[tuple[str, int], ...] = ()


def declared(experiment: Experiment) -> dict[str, Any]:
  """What an experiment says of the numbers that a run reports, as JSON.

  Returns:
    `metrics` (by name the fields of a `Metric`), `headline` and `phases`, as they stand
    in config.json, where the report finds them.
  """
  return {
    'metrics': {name: m._asdict() for name, m in experiment.metrics.items()},
    'headline': list(experiment.headline),
    'phases': [list(phase) for phase in experiment.phases],
  }
