"""The pictures that are looked at: a person's files, or examples of a set."""

from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import numpy as np

from dlx.data.sources import read
from dlx.errors import ConfigError
from dlx.experiment import Function
from dlx.inspect.subject import Subject
from dlx.run import answers, given, of_set

if TYPE_CHECKING:
  from dlx.run.opened import Run


class Pictures(NamedTuple):
  """Attributes:
  rows: as the function takes them, [N, H, W, C].
  names: what each is called.
  labels: int [N], of examples that have one; else None.
  """

  rows: np.ndarray
  names: list[str]
  labels: np.ndarray | None = None


def of_files(function: Function, files: Sequence[str], *, resize: bool) -> Pictures:
  """Pictures .png, .jpg and what Pillow reads, or arrays .npy, .npz.

  Raises:
    ConfigError: a file that is not there, is no picture, or has another size.
  """
  ((name, field),) = function.inputs.items()
  found, names = answers.inputs_of_words(function, files)
  if name not in found:
    raise ConfigError(f'{files[0]}: holds no {name}: must be pictures, .npy or .npz.')
  rows = np.asarray(given.read(name, field, found[name], resize=resize).rows)
  return Pictures(rows, names or [f'{files[0]}:{i}' for i in range(1, len(rows) + 1)])


def of_split(
  run: 'Run', function: Function, num: int, *, data_dir: Any = None
) -> Pictures:
  """The first examples of the run's test split, or of its first evaluation.

  Raises:
    ConfigError: no evaluation holds images as the function takes them.
    DataError: the data are not there.
  """
  ((name, field),) = function.inputs.items()
  experiment = run.experiment
  fitting = [
    split
    for split, evaluation in experiment.evals.items()
    if name in (shapes := evaluation.data.shapes[0])
    and shapes[name].shape[1:] == field.shape
  ]
  if not fitting:
    raise ConfigError(
      f'No evaluation of the run holds {given.described(function.inputs)}: name FILES.'
    )
  split = 'test' if 'test' in fitting else fitting[0]
  config: Any = run.config
  subject = Subject(lambda _: experiment, config, data_dir)
  found = subject.rows(experiment.evals[split].data, num)
  rows = found[name]
  labels = found.get('label')
  is_one = labels is not None and labels.ndim == 1
  names = [f'{split}:{i}' for i in range(1, len(rows) + 1)]
  return Pictures(rows, names, labels if is_one else None)


def of_dataset(
  run: 'Run', what: str, dataset: str, num: int, *, resize: bool, data_dir: Any = None
) -> Pictures:
  """The first examples of a split of any set of images.

  Args:
    run: opened.
    what: the name of a function of one image.
    dataset: NAME[:SPLIT], see `of_set.in_parts`.
    num: how many; all of a smaller split.
    resize: brings images to the size that the function takes.
    data_dir: where the set lies.

  Returns:
    Pictures; those of a set with other classes than the run's have no labels.

  Raises:
    ConfigError: no such set, or one of other images.
    DataError: the data are not there.
  """
  function, found = run.function(what), of_set.named(run, dataset)
  ((name, field),) = function.inputs.items()
  taken = of_set.taken_from(found, what, function, {}, resize)
  data = read(found.source, data_dir).data
  values = of_set.as_given(data[taken[name]][:num], field, found)
  rows = np.asarray(given.read(name, field, values, resize=resize).rows)
  labels, names = None, [f'{found.told}:{i}' for i in range(1, len(rows) + 1)]
  if 'label' in data and found.classes in [x.names for x in function.outputs.values()]:
    labels = np.asarray(data['label'][:num])
  return Pictures(rows, names, labels)
