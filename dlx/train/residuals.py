"""What a gradient costs in memory: the numbers that are kept for the way back."""

import math
from typing import Any, Callable

import jax
import numpy as np

from dlx.state import PyTree


def kept_bytes(function: Callable[..., Any], *args: PyTree) -> int:
  """Bytes that reverse mode keeps from the way forward of a function, by its trace.

  What the compiler joins or computes again is not taken off, arguments that the way
  back reads (parameters) are counted.

  Args:
    function: of arrays that are differentiated, to an array or a tree.
    *args: its arguments, arrays or ShapeDtypeStructs; nothing is computed.
  """
  pull = jax.eval_shape(lambda *a: jax.vjp(function, *a)[1], *args)
  size = lambda x: math.prod(x.shape) * np.dtype(x.dtype).itemsize
  return sum(size(x) for x in jax.tree.leaves(pull))
