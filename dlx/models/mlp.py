"""Multi-layer perceptron."""

from typing import Any, Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx.layers.normalisation import BatchNorm

# Where the state lies on a mesh: layers in pairs, the first divided by its units, the
# second by its inputs, so that a pair costs one sum over devices (arXiv:1909.08053).
PLACEMENT = (
  (r'Dense_\d*[02468]/kernel$', P('fsdp', 'tensor')),
  (r'Dense_\d*[02468]/bias$', P('tensor')),
  (r'Dense_\d*[13579]/kernel$', P('tensor', 'fsdp')),
)


class MLP(nn.Module):
  """Dense, batch norm, activation, dropout for each hidden layer; then Dense.

  With batch norm a hidden layer has no bias: batch norm would take it out again, its
  gradient is rounding noise, and Adam divides noise by noise.

  Attributes:
    features: widths of the hidden layers; () is a linear model.
    num_outputs: K, logits or regression outputs.
    dropout: probability that a hidden unit is dropped (arXiv:1207.0580).
    input_dropout: probability that an input is dropped.
    batch_norm: normalise before the activation (arXiv:1502.03167).
    activation: of the hidden layers.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the hidden layers' arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  features: Sequence[int]
  num_outputs: int
  dropout: float = 0.0
  input_dropout: float = 0.0
  batch_norm: bool = False
  activation: Callable[[jax.Array], jax.Array] = nn.relu
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Outputs [B, K], float32 or wider.

    Args:
      x: [B, ...], flattened to [B, D].
      train: drop units (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').
    """
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x_BF = x.reshape(x.shape[0], -1)
    x_BF = nn.Dropout(self.input_dropout, deterministic=not train)(x_BF)
    for width in self.features:
      x_BF = nn.Dense(width, use_bias=not self.batch_norm, **dtypes)(x_BF)
      if self.batch_norm:
        norm = BatchNorm(not train, momentum=self.momentum, **dtypes)
        x_BF = norm(x_BF)
      x_BF = self.activation(x_BF)
      x_BF = nn.Dropout(self.dropout, deterministic=not train)(x_BF)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    return nn.Dense(self.num_outputs, dtype=wide, param_dtype=self.param_dtype)(x_BF)
