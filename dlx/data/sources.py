"""Where examples come from: sources read and checked, cut by class or size."""

import dataclasses
import hashlib
from typing import Any, Callable, Mapping, Sequence

from absl import logging
import jax
import numpy as np

from dlx.data.dataset import MAX, Loaded, Shapes, Source
from dlx.data.lazy import Rows, first, pick
from dlx.errors import ConfigError, DataError


def unlabelled(source: Source) -> Source:
  """A source without the field `label`: what is not in a batch cannot leak."""

  def read(data_dir):
    loaded = source.read(data_dir)
    return loaded._replace(data={k: x for k, x in loaded.data.items() if k != 'label'})

  shapes = {name: x for name, x in source.shapes.items() if name != 'label'}
  return dataclasses.replace(source, shapes=shapes, read=read)


def remembered(source: Source) -> tuple[Source, Callable[[], Mapping[str, Any]]]:
  """A source, and what gives its arrays again once the run has read them.

  A fit before step 0, in `Experiment.warm_start`, happens after the data was read, from
  wherever the run was told to.
  """
  last: list[Loaded] = []

  def read(data_dir):
    last[:] = [source.read(data_dir)]
    return last[0]

  recall = lambda: (last[0] if last else source.read(None)).data
  return dataclasses.replace(source, read=read), recall


Arrays = Mapping[str, Any]


def read(source: Source, data_dir: Any = None) -> Loaded:
  """Reads a source and checks what came against what it declares.

  Returns:
    The declared fields, in their declared order, as C-contiguous arrays; rows that are
    read when they are asked for as `Rows`.

  Raises:
    DataError: nothing found, or a field, shape, dtype or size that is not the declared
      one.
  """
  loaded = source.read(data_dir)
  where = f'{source.name}/{source.split}'

  def wrong(field, expected, found):
    return DataError(
      f'{where}: {field}: expected {expected}, found {found}: replace the files by '
      'undamaged ones, or correct the source.'
    )

  if set(loaded.data) != set(source.shapes):
    raise wrong('fields', sorted(source.shapes), sorted(loaded.data))
  sizes = {}
  for name, declared in source.shapes.items():
    found = loaded.data[name]
    found = found if isinstance(found, Rows) else np.asanyarray(found)
    if found.dtype != declared.dtype:
      raise wrong(f'dtype of field {name!r}', np.dtype(declared.dtype), found.dtype)
    if found.ndim < 1 or found.shape[1:] != tuple(declared.shape):
      expected = ', '.join(['N', *map(str, declared.shape)])
      raise wrong(f'shape of field {name!r}', f'({expected})', found.shape)
    sizes[name] = len(found)
  first, size = next(iter(sizes.items()))
  for name, found in sizes.items():
    if found != size:
      raise wrong(f'size of field {name!r}', f'{size} as of field {first!r}', found)
  if source.size is not None and size != source.size:
    raise wrong('size', f'{source.size} examples', size)
  if not 1 <= size <= MAX:
    raise wrong('size', '1 to 2**31 - 1 examples', size)
  # Memory-mapped files stay what they are: nothing of them is read here.
  data = {name: _contiguous(loaded.data[name]) for name in source.shapes}
  return Loaded(data, {**loaded.origin, 'size': size})


def _contiguous(x: Any) -> Any:
  if isinstance(x, Rows):
    return x
  x = np.asanyarray(x)
  return x if x.flags.c_contiguous else np.ascontiguousarray(x)


def as_numbers(what: str, value: Any, dtype: Any = None) -> np.ndarray:
  """A value of the user's as an array of a dtype that devices have.

  Args:
    what: names the value in messages.
    value: what NumPy makes an array of: numbers, lists of them, NumPy and JAX arrays,
      torch tensors of the CPU, PIL pictures.
    dtype: that is declared; None: its own, with 32 bits in place of 64 unless JAX
      computes with 64.

  Raises:
    DataError: no array of numbers; numbers that the dtype cannot hold.
  """
  try:
    found = np.asarray(value)
    wanted = np.dtype(dtype or jax.dtypes.canonicalize_dtype(found.dtype))
    if not (found.dtype == bool or jax.dtypes.issubdtype(found.dtype, np.number)):
      raise TypeError(f'of dtype {found.dtype}')
  except (TypeError, ValueError) as error:
    raise DataError(
      f'{what}: expected an array of numbers, found {type(value).__name__} ({error}): '
      'make one of it first, or leave it out.'
    ) from error
  fits = np.can_cast(found.dtype, wanted, 'same_kind')
  cast = found.astype(wanted, copy=False) if fits else found
  if not fits or (wanted.kind in 'iu' and (cast != found).any()):
    raise DataError(
      f'{what}: expected {wanted}, found {found.dtype} that it cannot hold.'
    )
  return cast


def own_origin(arrays: Arrays, name: str, split: str, size: int) -> dict[str, Any]:
  """`Loaded.origin` of arrays of the user's: with their sha256, to know them again."""
  digest = hashlib.sha256()
  for field, x in arrays.items():
    digest.update(f'{field} {x.dtype} {x.shape} '.encode())
    digest.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
  return {
    'name': name,
    'split': split,
    'kind': 'own',
    'size': size,
    'sha256': digest.hexdigest(),
  }


def of_arrays(arrays: Arrays, name: str = 'own', split: str = 'train') -> Source:
  """A source of arrays that are in memory, one example a row.

  Numbers of 64 bits become such of 32, unless JAX computes with 64.

  Raises:
    DataError: a field that is no array of numbers, or fields of other lengths.
  """
  data = {k: as_numbers(f'{name}/{split}: field {k!r}', x) for k, x in arrays.items()}
  sizes = {k: len(x) if x.ndim else 0 for k, x in data.items()}
  if len(set(sizes.values())) != 1 or not all(sizes.values()):
    raise DataError(
      f'{name}/{split}: fields of {sizes} examples: must have the same number, at '
      'least 1.'
    )
  size = next(iter(sizes.values()))
  shapes = {k: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for k, x in data.items()}
  load = lambda data_dir: Loaded(data, own_origin(data, name, split, size))
  return Source(name, split, shapes, size, load)


def indexed(source: Source, limit: int | None = None) -> Source:
  """A source with one more field, `index` int32 []: 0 for its first example, 1, ...

  Noise keyed by it (a sampler's start, the time of a denoising loss) does not depend on
  the batch size.

  Args:
    limit: only the first examples, at most this many; None: all.

  Raises:
    ConfigError: limit below 1, or the source has a field `index`.
  """
  if limit is not None and limit < 1:
    raise ConfigError(f'limit={limit} is not allowed: must be at least 1.')
  if 'index' in source.shapes:
    raise ConfigError(
      f'{source.name}/{source.split}: field index is not allowed: it is added here.'
    )
  size = source.size if limit is None else min(source.size or limit, limit)

  def read_some(data_dir):
    loaded = source.read(data_dir)
    data = {name: first(x, limit) for name, x in loaded.data.items()}
    n = num_examples(data)
    data['index'] = np.arange(n, dtype=np.int32)
    return Loaded(data, {**loaded.origin, 'size': n})

  shapes = {**source.shapes, 'index': jax.ShapeDtypeStruct((), np.int32)}
  unknown = source.size is None  # Whether there are as many shows on load.
  return dataclasses.replace(
    source, shapes=shapes, size=None if unknown else size, read=read_some
  )


def of_classes(source: Source, classes: Sequence[int], field: str = 'label') -> Source:
  """The examples of some classes, whose labels become 0, 1, ... in the given order.

  Their number is known only on load.
  """
  if not classes or len(set(classes)) != len(classes):
    raise ConfigError(f'classes={classes} are not allowed: must be some, each once.')

  def read_some(data_dir):
    loaded = source.read(data_dir)
    label_N = np.asarray(loaded.data[field])
    rows = np.isin(label_N, classes).nonzero()[0]
    data = {name: pick(x, rows) for name, x in loaded.data.items()}
    new = np.zeros(max(max(classes), label_N.max()) + 1, label_N.dtype)
    new[list(classes)] = np.arange(len(classes))
    data[field] = new[np.asarray(data[field])]
    origin = {**loaded.origin, 'size': len(rows), 'classes': list(classes)}
    return Loaded(data, origin)

  return dataclasses.replace(source, size=None, read=read_some)


def sorted_by(source: Source, field: str) -> Source:
  """The examples in rising order of a field of numbers; equal ones in their order.

  Raises:
    ConfigError: no such field, or one of more than a number an example.
  """
  shape = source.shapes.get(field)
  if shape is None or shape.shape:
    numbers = ', '.join(name for name, x in source.shapes.items() if not x.shape)
    raise ConfigError(
      f'{source.name}/{source.split}: field {field!r} is not allowed: must be one of '
      f'a number an example: {numbers or "there is none"}.'
    )

  def read_sorted(data_dir):
    loaded = source.read(data_dir)
    rows = np.argsort(np.asarray(loaded.data[field]), kind='stable')
    data = {name: pick(x, rows) for name, x in loaded.data.items()}
    return Loaded(data, {**loaded.origin, 'sorted_by': field})

  return dataclasses.replace(source, read=read_sorted)


def subset(
  source: Source,
  size: int,
  seed: int = 0,
  *,
  by_class: str | None = None,
  marked: int | None = None,
) -> Source:
  """`size` examples of a source, at random by `seed` (NumPy's, on the host).

  Args:
    size: examples that are kept; more than there are is an error on load.
    by_class: field of integer classes: as many of each class, as far as that goes (the
      first classes get one more). The smaller subset of a seed is part of the larger.
    marked: adds a field `marked` bool []: whether an example is also in the subset of
      this size.

  Raises:
    ConfigError: size below 1, or more than the source declares.
  """
  most = source.size
  if size < 1 or (most is not None and size > most):
    raise ConfigError(
      f'subset of {size} examples is not allowed: {source.name}/{source.split} has '
      f'{most or "some"}: must be 1 to that.'
    )

  def read_some(data_dir):
    loaded = source.read(data_dir)
    n = num_examples(loaded.data)
    order_N = np.random.default_rng(seed).permutation(n)
    if by_class is not None:
      # Turn by turn through the classes: sorted by (rank within the class, class).
      class_N = np.asarray(loaded.data[by_class])[order_N]
      rank_N = np.zeros(n, np.int64)
      for value in np.unique(class_N):
        rank_N[class_N == value] = np.arange((class_N == value).sum())
      order_N = order_N[np.lexsort((class_N, rank_N))]
    if size > n:
      raise DataError(
        f'{source.name}/{source.split}: a subset of {size} examples is asked for, '
        f'there are {n}.'
      )
    rows = np.sort(order_N[:size])
    data = {name: pick(x, rows) for name, x in loaded.data.items()}
    if marked is not None:
      data['marked'] = np.isin(rows, order_N[:marked])
    return Loaded(data, {**loaded.origin, 'size': size, 'subset_seed': seed})

  shapes = dict(source.shapes)
  if marked is not None:
    shapes['marked'] = jax.ShapeDtypeStruct((), np.bool_)
  return dataclasses.replace(source, shapes=shapes, size=size, read=read_some)


def held_out(
  source: Source, share: float, seed: int = 0, *, by_class: str | None = None
) -> tuple[Source, Source]:
  """(training, validation): `share` of a source is held out, the rest is left.

  Which examples: at random by `seed` (NumPy's, on the host), and by nothing else, so
  that runs of other seeds are compared on the same. A smaller share is a part of a
  larger one.

  Args:
    share: of the examples, in (0, 1); their number is rounded, and is at least 1.
    by_class: field of integer classes, each of which gives its share: its number of
      examples times `share`, rounded up or down.

  Raises:
    ConfigError: a share outside (0, 1).
    DataError: on load: of a single example nothing is left.
  """
  if not 0 < share < 1:
    raise ConfigError(f'share={share} is not allowed: must be in (0, 1).')

  def count(n: int) -> int:
    return max(1, round(share * n))

  def part(split: str, size: int | None):
    def read_part(data_dir):
      loaded = source.read(data_dir)
      n = num_examples(loaded.data)
      if count(n) == n:
        raise DataError(
          f'{source.name}/{source.split}: share={share} of {n} examples leaves none '
          'to train on: hold out less.'
        )
      order_N = np.random.default_rng(seed).permutation(n)
      if by_class is not None:
        # Evenly through every class: by the middle of each one's place in its class.
        class_N = np.asarray(loaded.data[by_class])[order_N]
        place_N = np.zeros(n)
        for value in np.unique(class_N):
          rows = (class_N == value).nonzero()[0]
          place_N[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        order_N = order_N[np.argsort(place_N, kind='stable')]
      held = order_N[: count(n)]
      rows = np.sort(held) if split == 'validation' else np.delete(np.arange(n), held)
      data = {name: pick(x, rows) for name, x in loaded.data.items()}
      more = {'size': len(rows), 'held_out': share, 'split_seed': seed}
      return Loaded(data, {**loaded.origin, 'split': split, **more})

    return dataclasses.replace(source, split=split, size=size, read=read_part)

  n = source.size
  left, held = (None, None) if n is None else (n - count(n), count(n))
  return part(source.split, left), part('validation', held)


def loaded_for(source: Source, batch_size: int, data_dir: Any = None) -> Loaded:
  """`read` for training; a warning where a batch holds examples more than once."""
  found = read(source, data_dir)
  size = num_examples(found.data)
  if size < batch_size:
    logging.warning(
      '%s/%s has %d examples, fewer than a batch of %d, which holds some twice: '
      'batch_size=%d or less takes each once.',
      *(source.name, source.split, size, batch_size, size),
    )
  return found


def num_examples(data: Arrays) -> int:
  """Length of the leading axis that all fields share."""
  return next(iter(data.values())).shape[0]


def batch_shapes(source: Source, batch_size: int, *, weight: bool = False) -> Shapes:
  """Shapes of one global batch of a source.

  Raises:
    ConfigError: an impossible batch size, or a field that is called `weight` where the
      batch gets one.
  """
  if not 1 <= batch_size <= MAX:
    raise ConfigError(f'batch_size={batch_size} is not allowed: must be at least 1.')
  if not source.shapes:
    raise ConfigError(f'{source.name}/{source.split} declares no fields.')
  shapes = {
    name: jax.ShapeDtypeStruct((batch_size, *x.shape), x.dtype)
    for name, x in source.shapes.items()
  }
  if weight:
    if 'weight' in shapes:
      raise ConfigError(
        f'{source.name}/{source.split}: field weight is not allowed: the batches of a '
        'pass get one; rename the field.'
      )
    shapes['weight'] = jax.ShapeDtypeStruct((batch_size,), np.float32)
  return shapes
