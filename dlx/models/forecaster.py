"""Quantiles of the numbers that follow a stretch of a series."""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.matmul import Dense
from dlx.layers.recurrent.cells import CELLS, cell_by_name
from dlx.layers.recurrent.stack import RecurrentStack

MODELS = ('linear', 'mlp', *CELLS)


class Forecaster(nn.Module):
  """A recurrent net that reads the stretch, or layers that see all of it at once.

  Attributes:
    model: linear, mlp, or a name of dlx.layers.recurrent.cells.CELLS.
    features: units of each hidden layer; linear has none.
    horizon: H, numbers that follow.
    levels: Q, of the quantiles.
    dropout: share of the last hidden units that are dropped, and between layers.
    dtype: of the arithmetic; the outputs are at least float32.
    param_dtype: of the parameters.
  """

  model: str
  features: Sequence[int]
  horizon: int
  levels: int
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, past_BW: jax.Array, *, train: bool) -> jax.Array:
    """Quantiles [B, H, Q], rising along the last axis.

    Args:
      past_BW: the stretch.
      train: drop units (rng 'dropout').
    """
    dtypes: dict[str, Any] = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x_BF = past_BW
    if self.model == 'mlp':
      for i, features in enumerate(self.features):
        x_BF = Dense(features, name=f'hidden_{i}', **dtypes)(x_BF)
        x_BF = drop(nn.relu(x_BF))
    elif self.model != 'linear':
      h_BWF, _ = RecurrentStack(
        cell_by_name(self.model),
        self.features,
        dropout=self.dropout,
        name='encoder',
        **dtypes,
      )(past_BW[..., None], train=train)
      x_BF = drop(h_BWF[:, -1])
    head = Dense(
      self.horizon * self.levels,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    y_BHQ = head(x_BF).reshape(len(past_BW), self.horizon, self.levels)
    # The lowest, and steps above 0 to the next: quantiles that cannot cross.
    steps_BHQ = jnp.concatenate([y_BHQ[..., :1], nn.softplus(y_BHQ[..., 1:])], -1)
    return jnp.cumsum(steps_BHQ, -1)
