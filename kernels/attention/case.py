"""What is asked of attention: a hashable description, and the arrays.

B batch, L queries, M keys, H heads of queries, G heads of keys and values (a divisor of
H; query head h reads head h // (H / G)), K width of a head.
"""

from typing import NamedTuple

import jax

Array = jax.Array


class Case(NamedTuple):
  """Shapes and what is computed; hashable, a static argument.

  Attributes:
    batch, q_len, kv_len, q_heads, kv_heads, head_dim: B, L, M, H, G, K.
    dtype: name of the dtype of q, k and v.
    scale: of the scores.
    causal: query l sees keys 0 to l. Counted from the first of both, also for L != M.
    window: (left, right): query l sees keys l - left to l + right; None: all.
    segments: whether there are segment ids.
    bias: shape of the bias; None: there is none.
    soft_cap: scores s become cap tanh(s / cap), before the bias; None: they do not.
    dropout_rate: probability that a weight is dropped and the others scaled up.
    return_lse: whether the log sums are asked for, and may have a gradient.
  """

  batch: int
  q_len: int
  kv_len: int
  q_heads: int
  kv_heads: int
  head_dim: int
  dtype: str = 'float32'
  scale: float = 1.0
  causal: bool = False
  window: tuple[int, int] | None = None
  segments: bool = False
  bias: tuple[int, int, int, int] | None = None
  soft_cap: float | None = None
  dropout_rate: float = 0.0
  return_lse: bool = False

  @property
  def group(self) -> int:
    """Query heads that share a head of keys."""
    return self.q_heads // self.kv_heads


class Operands(NamedTuple):
  """The arrays; what is None is not asked for.

  Attributes:
    q_BLHK, k_BMGK, v_BMGK: of one dtype.
    bias: added to the scores, sizes 1 or B, H, L, M.
    q_segment_BL, kv_segment_BM: int32; a query sees keys of its own number.
    seed: uint32 [2], of the dropped weights.
  """

  q_BLHK: Array
  k_BMGK: Array
  v_BMGK: Array
  bias: Array | None = None
  q_segment_BL: Array | None = None
  kv_segment_BM: Array | None = None
  seed: Array | None = None
