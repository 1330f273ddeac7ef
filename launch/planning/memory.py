"""Bytes on one device, by what they are for; and what XLA says where they are too many.

XLA's own analysis counts arguments, results, temporaries and the program. Arguments are
told apart here by the placement of the state, of the data and of the batch.
"""

import math
import re
from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from dlx.state import TrainState, is_key

_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_SIZE = r'([\d.]+)([KMGT]?)'


class OutOfMemory(NamedTuple):
  """What XLA says of a program that it refuses.

  Attributes:
    used: bytes in all, as far as it says; at least these.
    limit: bytes that there are.
    temporaries: of them, None where it does not say.
    message: its first line.
  """

  used: int
  limit: int
  temporaries: int | None
  message: str


def on_device(tree: Any) -> int:
  """Bytes on one device of arrays, or ShapeDtypeStructs, with shardings."""
  return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _bytes(leaf: Any) -> int:
  shape = tuple(leaf.shape)
  if leaf.sharding is not None:
    shape = leaf.sharding.shard_shape(shape)
  if is_key(leaf):
    data = jax.eval_shape(
      jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    )
    width = data.shape[-1] * data.dtype.itemsize
  else:
    width = np.dtype(leaf.dtype).itemsize
  return math.prod(shape) * width


def of_state(state: TrainState) -> dict[str, int]:
  """Bytes on one device of a placed state, by kind."""
  return {
    'parameters': on_device(state.params),
    'optimiser': on_device(state.opt_state),
    'ema': on_device(state.ema),
    'model_state': on_device(state.model_state),
    'counters': on_device((state.step, state.rng, state.evaluated, state.stop)),
  }


def by_kind(given: Mapping[str, int], analysis: Any) -> dict[str, int]:
  """All bytes of a program on one device, by kind; their sum is what it needs.

  Args:
    given: of its arguments, by kind.
    analysis: `Compiled.memory_analysis()`.

  Returns:
    `given` and
      padding: what tiles and alignment add to the arguments;
      results: what is not written over an argument;
      temporaries: activations, gradients and work space;
      program: its code.
  """
  stats = xla(analysis)
  return {
    **given,
    'padding': max(0, stats['arguments'] - sum(given.values())),
    'results': stats['results'] - stats['aliased'],
    'temporaries': stats['temporaries'],
    'program': stats['program'],
  }


def xla(analysis: Any) -> dict[str, int]:
  """XLA's own analysis under plain names."""
  return {
    'arguments': analysis.argument_size_in_bytes,
    'results': analysis.output_size_in_bytes,
    'aliased': analysis.alias_size_in_bytes,
    'temporaries': analysis.temp_size_in_bytes,
    'program': analysis.generated_code_size_in_bytes,
  }


def needed(stats: Mapping[str, int]) -> int:
  """Bytes of a program, from `xla`."""
  kept = stats['arguments'] + stats['results'] - stats['aliased']
  return kept + stats['temporaries'] + stats['program']


def refused(error: Exception) -> OutOfMemory | None:
  """Reads XLA's refusal of a program that needs too much; None for other errors."""
  text = str(error)
  if 'RESOURCE_EXHAUSTED' not in text:
    return None
  first = text.splitlines()[0][:300]
  too_large = re.search(
    rf'HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)', text
  )
  if too_large:
    temporaries, available = (
      _size(*too_large.group(1, 2)),
      _size(*too_large.group(3, 4)),
    )
    return OutOfMemory(temporaries, available, temporaries, first)
  used = re.search(rf'memory space hbm\. Used {_SIZE} of {_SIZE} hbm', text)
  if not used:
    return None
  program = re.search(rf'^ *program +{_SIZE}', text, re.M)
  return OutOfMemory(
    _size(*used.group(1, 2)),
    _size(*used.group(3, 4)),
    _size(*program.group(1, 2)) if program else None,
    first,
  )


def _size(number: str, unit: str) -> int:
  return int(float(number) * _UNITS[unit])
