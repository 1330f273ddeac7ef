"""Class labels, tokens and other indices: a wrong one gives nan, no other's number.

Left alone, JAX wraps -1 around to the last row, gives zeros or the nearest row for what
is too large, and compares in the dtype of the labels, where class 300 is 44 in uint8.
All functions take any integer dtype and compare in int32 or wider.
"""

from typing import Any

import jax.numpy as jnp

from dlx.state import Array


def is_index(index: Array, size: int) -> Array:
  """Whether each index lies in [0, size); bool, of the same shape."""
  index = _wide(index)
  return (index >= 0) & (index < size)


def hits(label: Array, num_classes: int) -> Array:
  """Whether each label is each class: bool [..., K]; no class for one out of range."""
  classes_K = jnp.arange(num_classes, dtype=jnp.int32)
  return _wide(label)[..., None] == classes_K.reshape((1,) * label.ndim + (-1,))


def one_hot(label: Array, num_classes: int, dtype: Any = jnp.float32) -> Array:
  """1 for the class of the label and 0 for the others, [..., K].

  Args:
    label: int, in [0, K); nan for all classes where it is not.
    num_classes: K.
    dtype: float.
  """
  hot = hits(label, num_classes).astype(dtype)
  return jnp.where(is_index(label, num_classes)[..., None], hot, jnp.nan)


def rows(table: Array, index: Array, size: int | None = None) -> Array:
  """Rows of a table [N, ...] of floats; nan for an index outside [0, size).

  Args:
    table: of numbers.
    index: int, of any shape.
    size: rows of the table that mean something, the first ones; None: all N.
  """
  size = table.shape[0] if size is None else size
  # Beyond the last row, since JAX counts -1 from the end in every mode.
  index = jnp.where(is_index(index, size), _wide(index), table.shape[0])
  return jnp.asarray(table).at[index].get(mode='fill', fill_value=jnp.nan)


def _wide(index: Array) -> Array:
  return index.astype(jnp.promote_types(index.dtype, jnp.int32))
