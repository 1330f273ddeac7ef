"""What describes a transformer block, handed down whole from model to layer.

GPT(block=BlockConfig(width=128, num_heads=4)) -> Transformer -> Block
  -> MultiHeadAttention, FeedForward
"""

import dataclasses
from typing import Any, Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import check_choice
from dlx.errors import ConfigError

Initializer = Callable[..., jax.Array]
NORMS = ('pre', 'post')
MLPS = {'gelu': 2, 'geglu': 3, 'swiglu': 3}  # And how many maps each has.


class Relative(NamedTuple):
  """Form of a relative bias (arXiv:1910.10683): a table of distances, for each head.

  Attributes:
    num_buckets: rows of the table. Of a causal layer half of them are distances of
      their own, from 0; the others take ranges that grow as a logarithm. Of others each
      direction has half of the rows.
    max_distance: from here on all distances share the last row.
  """

  num_buckets: int = 32
  max_distance: int = 128


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
    mlp_ratio: width of the feed-forward part over D, rounded to a whole width.
    mlp: 'gelu': Dense, GELU, Dense; 'geglu', 'swiglu': GELU(gate(x)) or SiLU(gate(x))
      times in(x), Dense (arXiv:2002.05202): three maps; at 2/3 of the ratio they have
      as many weights.
    norm: 'pre': x + f(norm(x)) (arXiv:2002.04745); 'post': norm(x + f(x)), as in
      arXiv:1706.03762, which wants a warm-up of the learning rate.
    rotary: base of rotary positions (arXiv:2104.09864) of queries and keys, counted
      from the first token; None: no positions.
    alibi: scores fall by a slope of the head times the distance (arXiv:2108.12409).
    relative: form of a learned bias by distance; None: none. Each layer has a table of
      its own, T5 one for all. This bias and that of `alibi` are of size H L M.
    window: W, a token sees itself and the W - 1 before it, and after it unless causal
      (arXiv:2004.05150); None: all. A cache is a ring then, see `KVCache`.
    qk_norm: queries and keys of each head are divided by their root mean square and
      multiplied by a learned scale, before they are turned (arXiv:2302.05442).
    soft_cap: scores s become cap tanh(s / cap), before any bias (arXiv:2408.00118);
      None: they do not.
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
  mlp_ratio: float = 4
  mlp: str = 'gelu'
  norm: str = 'pre'
  rotary: float | None = None
  alibi: bool = False
  relative: Relative | None = None
  window: int | None = None
  qk_norm: bool = False
  soft_cap: float | None = None
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

  def __post_init__(self):
    check_choice('norm', self.norm, NORMS)
    check_choice('mlp', self.mlp, MLPS)
    if self.window is not None and self.window < 1:
      raise ConfigError(
        f'window={self.window} is not allowed: must be at least 1, or None for all.'
      )
    if self.soft_cap is not None and not self.soft_cap > 0:
      raise ConfigError(
        f'soft_cap={self.soft_cap} is not allowed: must be above 0, or None for off.'
      )
    if self.relative is not None:
      rows, furthest = self.relative
      # Half of the rows of a direction are single distances; the others lie beyond.
      if rows < 4 or rows % 4 or furthest <= rows // 2:
        raise ConfigError(
          f'relative={tuple(self.relative)} is not allowed: must be a multiple of 4 '
          'buckets and a distance above half as many.'
        )

  @property
  def mlp_width(self) -> int:
    """Hidden units of the feed-forward part."""
    return round(self.mlp_ratio * self.width)

  @property
  def mlp_weights(self) -> int:
    """Weights of the maps of the feed-forward part."""
    return MLPS[self.mlp] * self.mlp_width * self.width

  @property
  def plain_scores(self) -> bool:
    """Whether scores are products of queries and keys, of all pairs, and no more."""
    more = (self.rotary, self.alibi, self.relative, self.window, self.qk_norm)
    return not any(more) and self.soft_cap is None

  def across(self) -> 'BlockConfig':
    """That of attention to a memory, which has no positions, windows or order."""
    return dataclasses.replace(
      self, causal=False, rotary=None, alibi=False, relative=None, window=None
    )

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
