"""A perceptron of equal hidden blocks, whose parts stand in any order."""

from typing import Any, Callable

import flax.linen as nn
import jax.numpy as jnp

from dlx.layers.drop_norm import DropNorm
from dlx.layers.dropout import alpha_drop, drop
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm, LayerNorm
from dlx.layers.split_linear import SplitLinear
from dlx.state import Array

LINEAR = ('dense', 'split')
# shuffle: deals the units out anew, so that each part of the next split sees all parts
# (arXiv:1707.01083). drop_norm is layer norm over the units that dropout keeps.
PARTS = (
  *LINEAR,
  *('shuffle', 'batch_norm', 'layer_norm', 'drop_norm'),
  *('activation', 'dropout', 'alpha_dropout'),
)


class Blocks(nn.Module):
  """Equal blocks, then a dense layer.

  A linear part that stands right before batch norm has no bias, which that would take
  out again. The layer in place j of block i is `block_i_j`, the last one `head`.

  Attributes:
    depth: blocks.
    width: units of each.
    block: its parts in their order, names of PARTS.
    num_outputs: K.
    split: parts of the units that `split` and `shuffle` treat alike.
    rate: share that dropout of any kind drops, in [0, 1); it may be traced.
    activation: of part `activation`.
    kernel_init: of all kernels.
    dtype: of the blocks' arithmetic; the head is at least float32.
    param_dtype: of the parameters.
  """

  depth: int
  width: int
  block: tuple[str, ...]
  num_outputs: int
  split: int
  rate: float | Array
  activation: Callable[[Array], Array]
  kernel_init: Callable[..., Array]
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x: Array, *, train: bool) -> Array:
    """Logits [B, K] of x [B, ...], float32 or wider."""
    return self.forward(x, train)[0]

  def hidden(self, x: Array) -> list[Array]:
    """What each block gives in evaluation, [B, width]."""
    return self.forward(x, False)[1]

  @nn.compact
  def forward(self, x: Array, train: bool) -> tuple[Array, list[Array]]:
    """Logits, and what each block gives."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    linear = {'kernel_init': self.kernel_init, **dtypes}
    random = lambda f, y: f(self.make_rng('dropout'), y, self.rate) if train else y
    norms = {
      'batch_norm': lambda **own: BatchNorm(not train, momentum=0.9, **own),
      'layer_norm': lambda **own: LayerNorm(**own),
      'drop_norm': lambda **own: DropNorm(self.rate, not train, **own),
    }
    y, found = x.reshape(x.shape[0], -1), []
    for i in range(self.depth):
      for j, part in enumerate(self.block):
        name = f'block_{i}_{j}'
        biased = self.block[j + 1 : j + 2] != ('batch_norm',)
        if part == 'dense':
          y = Dense(self.width, biased, name=name, **linear)(y)
        elif part == 'split':
          y = SplitLinear(self.width, self.split, biased, name=name, **linear)(y)
        elif part == 'shuffle':
          dealt = y.reshape(-1, self.split, self.width // self.split)
          y = dealt.swapaxes(1, 2).reshape(-1, self.width)
        elif part in norms:
          y = norms[part](name=name, **dtypes)(y)
        elif part == 'activation':
          y = self.activation(y)
        else:
          y = random(drop if part == 'dropout' else alpha_drop, y)
      found.append(y)
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      kernel_init=self.kernel_init,
      name='head',
    )
    return head(y), found
