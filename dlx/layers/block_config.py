"""What describes a transformer block, handed down whole from model to layer.

GPT(block=BlockConfig(width=128, num_heads=4)) -> Transformer -> Block
  -> MultiHeadAttention, FeedForward
"""

import dataclasses
from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig:
  """Sizes, form and arithmetic of a block; each layer reads the fields that it needs.

  A model sets what belongs to its architecture by `dataclasses.replace`: GPT is causal
  and chooses positions and initial weights; its docstring says so.

  Attributes:
    width: D of the stream.
    num_heads: H of the attention, a divisor of D.
    num_kv_heads: G, a divisor of H: so many heads of keys and values, each read by
      H / G neighbouring heads of queries (arXiv:2305.13245); None: H.
    mlp_ratio: width of the feed-forward part over D.
    rotary: base of rotary positions (arXiv:2104.09864) of queries and keys, counted
      from the first token; None: no positions.
    causal: no token sees a later one. A cached call is always causal.
    use_bias: in all maps and norms.
    exact_gelu: x Phi(x) by erf; False: the tanh form, as in GPT-2.
    dropout: probability that an entry is dropped: of attention weights and of both
      residual branches.
    kernel_init: of the maps that read the stream.
    residual_init: of the two maps that write to the stream.
    unroll: layers in one turn of the scan over a stack of N; N is a plain loop over the
      same parameters: slower to compile, faster to run on a CPU.
    remat: what a stack keeps for the way back (arXiv:1604.06174), memory for time:
      'off': everything; 'dots': the stream between blocks and what the maps give, the
      rest (norms, GELU, attention between its maps) is computed again; 'full': the
      stream alone.
    dtype: of the arithmetic; softmax and statistics are at least float32.
    param_dtype: of the parameters.
  """

  width: int
  num_heads: int
  num_kv_heads: int | None = None
  mlp_ratio: int = 4
  rotary: float | None = None
  causal: bool = False
  use_bias: bool = True
  exact_gelu: bool = True
  dropout: float = 0.0
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  residual_init: Initializer = nn.initializers.xavier_uniform()
  unroll: int = 1
  remat: str = 'off'
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @property
  def kv_heads(self) -> int:
    """G."""
    return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

  @property
  def head_dim(self) -> int:
    """Width of a head."""
    return self.width // self.num_heads

  @property
  def dtypes(self) -> dict[str, Any]:
    """`Layer(..., **config.dtypes)`: dtype and param_dtype of a module."""
    return {'dtype': self.dtype, 'param_dtype': self.param_dtype}
