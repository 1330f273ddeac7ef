"""Whether two trees are the same to the bit."""

import jax
import numpy as np


def same_bytes(a, b) -> bool:
  """Whether two trees have equal structures, dtypes and bytes."""
  if jax.tree.structure(a) != jax.tree.structure(b):
    return False
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(
    np.asarray(x).dtype == np.asarray(y).dtype
    and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    for x, y in pairs
  )
