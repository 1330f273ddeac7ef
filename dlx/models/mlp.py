"""Multi-layer perceptron."""

import functools
from typing import Any, Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm

# Where the state lies on a mesh: layers in pairs, the first divided by its units, the
# second by its inputs, so that a pair costs one sum over devices (arXiv:1909.08053).
# The head is a second one: its few outputs are seldom divided.
PLACEMENT = (
  (r'hidden_\d*[02468]/kernel$', P('fsdp', 'tensor')),
  (r'hidden_\d*[02468]/bias$', P('tensor')),
  (r'(hidden_\d*[13579]|head)/kernel$', P('tensor', 'fsdp')),
)


class MLP(nn.Module):
  """Dense, batch norm, activation, dropout for each hidden layer; then Dense.

  With batch norm a hidden layer has no bias: batch norm would take it out again, its
  gradient is rounding noise, and Adam divides noise by noise. Layers are `hidden_0`,
  `norm_0`, `hidden_1`, ... and `head`.

  Attributes:
    widths: of the hidden layers; () is a linear model.
    num_outputs: K, logits or regression outputs.
    dropout: probability that a hidden unit is dropped (arXiv:1207.0580).
    input_dropout: probability that an input is dropped.
    batch_norm: normalise before the activation (arXiv:1502.03167).
    activation: of the hidden layers.
    kernel_init: of the kernels of all layers.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the hidden layers' arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  widths: Sequence[int]
  num_outputs: int
  dropout: float = 0.0
  input_dropout: float = 0.0
  batch_norm: bool = False
  activation: Callable[[jax.Array], jax.Array] = nn.relu
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Outputs [B, K], float32 or wider.

    Args:
      x: [B, ...], flattened to [B, D].
      train: drop units (rng 'dropout') and use and update statistics of the batch
        (collection 'batch_stats').
    """
    return self.forward(x, train)[0]

  def features(self, x: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F]: the last hidden layer, or the inputs of none."""
    return self.forward(x, train)[1]

  @nn.compact
  def forward(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Outputs and features."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    dense = functools.partial(Dense, kernel_init=self.kernel_init)
    x_BF = x.reshape(x.shape[0], -1)
    x_BF = nn.Dropout(self.input_dropout, deterministic=not train)(x_BF)
    biased = not self.batch_norm
    for i, width in enumerate(self.widths):
      x_BF = dense(width, use_bias=biased, name=f'hidden_{i}', **dtypes)(x_BF)
      if self.batch_norm:
        norm = BatchNorm(not train, momentum=self.momentum, name=f'norm_{i}', **dtypes)
        x_BF = norm(x_BF)
      x_BF = self.activation(x_BF)
      x_BF = nn.Dropout(self.dropout, deterministic=not train)(x_BF)
    head = dense(
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(x_BF), x_BF
