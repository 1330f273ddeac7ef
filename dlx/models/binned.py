"""A net whose classes are bins of a number, beside what was fitted with the bins."""

from typing import Any, Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.ordinal import Ordinal

FITTED = 'fitted'  # The collection, in `model_state`, of what is fitted before step 0.


class Binned(nn.Module):
  """Logits of K bins, and arrays of the collection `fitted`, which no step changes.

  Attributes:
    net: (inputs, train=...) -> [B, K], or scores [B, 1] of ordered bins; `net`.
    num_bins: K.
    ordered: whether the bins share one score (see `Ordinal`), which is `ordinal`.
    start: () -> what `fitted` holds before it is fitted, by name.
  """

  net: nn.Module
  num_bins: int
  ordered: bool
  start: Callable[[], Mapping[str, Any]]

  @nn.compact
  def __call__(self, inputs: Any, *, train: bool) -> dict[str, jax.Array]:
    """`logits` [B, K], float32 or wider, and what is fitted, by its names."""
    outputs = self.net(inputs, train=train)
    if self.ordered:
      outputs = Ordinal(self.num_bins, name='ordinal')(outputs[:, 0])
    fitted = {
      name: self.variable(FITTED, name, lambda x=x: jnp.asarray(x)).value
      for name, x in self.start().items()
    }
    return {'logits': outputs, **fitted}
