"""The data rule: a batch is a pure function of (seed, step) over the global batch.

A `Source` says what one split of one data set looks like and can read it. A `Dataset`
turns a source into batches. Constructing either reads nothing, so that a plan can be
made where there is no data; `load` is the only I/O.
"""

import abc
import dataclasses
from typing import Any, Callable, Mapping, NamedTuple

import jax
from jax.sharding import PartitionSpec as P
import numpy as np

Shapes = Mapping[str, jax.ShapeDtypeStruct]
ROWS = P(('data', 'fsdp'))  # The default placement of a batch: its leading axis.

MAX = 2**31 - 1  # The largest number of examples, of rows in a batch, and of a step.


class Loaded(NamedTuple):
  """What `load` gives.

  Attributes:
    data: resident: a mapping of NumPy arrays, one example a row. Streamed: whatever
      `get` reads from; picklable, since worker processes receive it.
    origin: what was read, as JSON: at least `name`, `split`, `kind` ('embedded',
      'raw', 'tfds', 'generated' or 'own') and `size`; `path` where there is one. It is
      logged and stands in result.json.
  """

  data: Any
  origin: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Source:
  """One split of one data set.

  Attributes:
    name: of the data set, as in `--config.dataset`.
    split: 'train', 'test' or 'validation'.
    shapes: shape and dtype of one example, by field, without a batch axis.
    size: number of examples, checked on load; None: known only once it was read.
    read: (data_dir or None) -> Loaded, all fields as arrays with a leading axis. The
      only I/O, but for rows that are made on demand. Raises DataError.
    on_demand: whether a field holds `dlx.data.lazy.Rows` that are made when they are
      asked for, in training by their place in the stream: never on the devices.
    held: of a training split: the validation split that comes with it; None: there is
      none.
  """

  name: str
  split: str
  shapes: Shapes
  size: int | None
  read: Callable[[Any], Loaded]
  on_demand: bool = False
  held: 'Source | None' = None


class Dataset(abc.ABC):
  """Batches by number. See `Resident` and `Streamed` for the two kinds.

  Attributes:
    shapes: of one global batch; one entry for each length bucket.
    size: examples an epoch; None: generated, or known only after load.
    placement: PartitionSpec of each field; fields not named lie along ROWS.
    rows: examples of one batch, which rates count; None: the leading axis of its first
      field.
  """

  shapes: tuple[Shapes, ...]
  size: int | None = None
  placement: Mapping[str, P] = {}
  rows: int | None = None
  get: Callable[..., Any]  # By number; see the two kinds.

  def shape_id(self, step: int) -> int:
    """Which of `shapes` batch `step` has: host, pure, constant over blocks of steps."""
    del step
    return 0

  @abc.abstractmethod
  def load(self, data_dir=None) -> Loaded:
    """Reads the data: the only I/O of a data set.

    Args:
      data_dir: folder of raw files, prepared and own sets; None: $DLX_DATA_DIR.

    Raises:
      DataError: nothing found (names all remedies), or a file is corrupt.
    """

  def num_batches(self, data) -> int | None:
    """Batches in one pass over loaded data; None: the stream has no end."""
    del data
    return None


class Resident(Dataset):
  """Arrays that fit on every device; batches are gathered inside the jitted step."""

  @abc.abstractmethod
  def array_shapes(self) -> Any:
    """ShapeDtypeStructs of the arrays that `load` gives, without reading them."""

  @abc.abstractmethod
  def get(self, arrays, step: jax.Array) -> Mapping[str, jax.Array]:
    """Global batch `step` (traced int32). `arrays` is an argument, never a constant.

    Data of several shapes also takes `shape_id`, which is static.
    """


class Streamed(Dataset):
  """Batches made on the host, by this process or by Grain's workers.

  Attributes:
    num_workers: worker processes; 0: threads of this process. Never changes a batch.
  """

  num_workers: int = 0

  @abc.abstractmethod
  def get(self, data, step: int, rows: slice) -> Mapping[str, np.ndarray]:
    """Those rows of global batch `step`, as NumPy arrays. Pure and picklable.

    Arrays that `dlx.data.room` makes are handed over by workers without a copy.
    """
