"""Batches of several runs at once: each sees those of its own seed."""

from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.dataset import Dataset, Loaded, Resident


class EachOwn(Resident):
  """For each member the batch of its own seed, [members, ...]; the arrays are shared.

  A batch of a seed that several members have is gathered once. It lies whole on every
  device, as members lie apart there.

  Attributes:
    rows: examples of one step, of all members together.
  """

  def __init__(self, data: Resident, seeds: np.ndarray, of: Callable[[Any], Dataset]):
    """
    Args:
      data: of one of the seeds.
      seeds: uint32 [members].
      of: seed, traced -> the data set of that seed, over the same arrays.
    """
    self.data, self.of = data, of
    self.distinct, self.index = np.unique(seeds, return_inverse=True)
    one, n = data.shapes[0], len(seeds)
    self.shapes = (
      {k: jax.ShapeDtypeStruct((n, *x.shape), x.dtype) for k, x in one.items()},
    )
    self.size = data.size
    self.placement = dict.fromkeys(one, P())
    leading = [x.shape[0] for x in one.values() if x.shape]
    self.rows = n * (leading[0] if leading else 1)

  def load(self, data_dir=None) -> Loaded:
    return self.data.load(data_dir)

  def array_shapes(self) -> Any:
    return self.data.array_shapes()

  def num_batches(self, data: Any) -> int | None:
    return self.data.num_batches(data)

  def get(self, arrays: Any, step: jax.Array) -> dict[str, jax.Array]:
    batch = jax.vmap(lambda s: self.of(s).get(arrays, step))(jnp.asarray(self.distinct))
    return {k: x[jnp.asarray(self.index)] for k, x in batch.items()}
