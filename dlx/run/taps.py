"""Which products of a convolution there are: taps that meet an input. No JAX."""

import numpy as np


def meetings(
  size: int, taps: int, places: int, *, stride=1, low=0, lhs_dilation=1, rhs_dilation=1
) -> int:
  """Pairs (place of the result, tap) along one dimension that meet an input.

  Args:
    size: of the input, without padding or holes.
    taps: of the kernel.
    places: of the result.
    stride, low, lhs_dilation, rhs_dilation: as lax has them; `low` is the padding
      before the first input, and may be negative.
  """
  place = stride * np.arange(places)[:, None] + rhs_dilation * np.arange(taps) - low
  inside = (place >= 0) & (place <= (size - 1) * lhs_dilation)
  return int((inside & (place % lhs_dilation == 0)).sum())
