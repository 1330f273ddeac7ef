"""A cell along time over padded rows, with one product for its weights' gradient.

The input's projection is one product of matrices before the scan, and the gradient of
the hidden kernel is one after it, not one in every step: `unroll` has a derivative of
its own, in reverse mode and of any order. Where oneDNN is built (kernels/onednn), a CPU
takes an LSTM whose state is float32 through all steps by one call each way, with its
products in float32 or bfloat16.
"""

import functools
from typing import Any, Callable, Sequence

import jax
from jax import lax
import jax.numpy as jnp

from dlx.layers.matmul import kernel_gradient, rows_product
from dlx.layers.recurrent.cells import LSTM, Cell, State
from dlx.layers.recurrent.noise import Noise
from dlx.precision import euclidean_norm
from kernels.matmul import product
from kernels.onednn import library, lstm

Array = jax.Array


def unroll(
  cell: Cell,
  x_TBG: Array,
  hidden_kernel: Array,
  hidden_bias: Array,
  state: State,
  length_B: Array | None = None,
  *,
  own: tuple[Array, ...] = (),
  reverse: bool = False,
  nudge_TBH: Array | None = None,
  noise: Noise | None = None,
) -> tuple[Array, State]:
  """Applies a cell to every step. Reverse mode only, of any order.

  Args:
    cell: one of CELLS, or your own, whose step closes over no traced array.
    x_TBG: projected inputs with their bias, time first, G*H wide.
    hidden_kernel: [H, G*H].
    hidden_bias: [G*H].
    state: before the first step; of the arithmetic's dtype.
    length_B: steps of each row; None: all T.
    own: [H] each, the further parameters that `cell.own` names.
    reverse: from each row's last step to its first.
    nudge_TBH: added to h after every step. Zeros change nothing, and the gradient of a
      loss for them is that for every h_t.
    noise: what is dropped of h before its product, and what of the old state stays; of
      the dtype of the state.

  Returns:
    (h_TBH, 0 past the end of a row; the state after a row's last step).
  """
  weights = (hidden_kernel, hidden_bias)
  if nudge_TBH is None and noise is None and _by_onednn(cell, state, x_TBG, *weights):
    t, b, _ = x_TBG.shape
    length_B = jnp.full(b, t) if length_B is None else length_B
    x_TBG, hidden_bias = (v.astype(jnp.float32) for v in (x_TBG, hidden_bias))
    args = (x_TBG, hidden_kernel, hidden_bias, state, length_B.astype(jnp.int32))
    return _lstm(reverse, *args)
  return _unroll(cell, reverse, x_TBG, *weights, own, state, length_B, nudge_TBH, noise)


def _by_onednn(cell: Cell, state: State, *arrays: Array) -> bool:
  fits = all(x.dtype in (jnp.float32, jnp.bfloat16) and x.size for x in arrays)
  fits = fits and all(x.dtype == jnp.float32 and x.size for x in state)
  return cell == LSTM and fits and library.usable()  # Flax rebuilds tuples.


def _weight_gradients(h_TBH: Array, du_TBG: Array, kernel: Array, bias: Array):
  """Of u = h kernel + bias, over all steps and rows at once."""
  d_kernel = kernel_gradient(
    h_TBH.astype(kernel.dtype), du_TBG.astype(kernel.dtype), du_TBG.dtype
  )
  return d_kernel.astype(kernel.dtype), du_TBG.sum((0, 1)).astype(bias.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lstm(reverse, x_TBG, kernel, bias, state, length_B):
  found: Any = lstm.forward(reverse, x_TBG, kernel, bias, *state, length_B)
  return found.h_TBH, (found.h_BH, found.c_BH)


def _lstm_forward(reverse, x_TBG, kernel, bias, state, length_B):
  found: Any = lstm.forward(reverse, x_TBG, kernel, bias, *state, length_B)
  saved = (found.gates_TBG, found.old_c_TBH, kernel, length_B)
  return (found.h_TBH, (found.h_BH, found.c_BH)), (saved, found.old_h_TBH, bias)


def _lstm_backward(reverse, residuals, slopes):
  (saved, old_h_TBH, bias), (dh_TBH, d_state) = residuals, slopes
  back: Any = lstm.backward(reverse, dh_TBH, *d_state, *saved)
  dx_TBG, *d_state = back
  weights = _weight_gradients(old_h_TBH, dx_TBG, saved[2], bias)
  return dx_TBG, *weights, tuple(d_state), None


_lstm.defvjp(_lstm_forward, _lstm_backward)


def _dropped(h: Array, noise: Noise) -> Array:
  """The output, of one step or of all, before its product with the hidden kernel."""
  if noise.hidden_BH is None:
    return h
  return h * (noise.hidden_BH if h.ndim == 2 else noise.hidden_BH[None])


def by_row(own: Sequence[Array], like: Array) -> list[Array]:
  """Further parameters as a cell takes them: [B, H] of each [H], of the type of h."""
  return [jnp.broadcast_to(x.astype(like.dtype), like.shape) for x in own]


def _scan(
  cell, reverse, x_TBG, kernel, bias, own, state, length_B, nudge_TBH, noise, save
) -> Any:
  """(What `unroll` returns, (u_TBG, the state before every step) where `save`)."""
  wide, noise = state[0].dtype, noise or Noise()
  own_BH = by_row(own, state[0])

  def body(state, inputs):
    t, x, nudge, old = inputs
    h = _dropped(state[0], noise)
    u = rows_product(h.astype(kernel.dtype), kernel, wide)
    u = u + bias.astype(wide)[None]
    saved = (u, state) if save else None
    new = cell.step(state, x.astype(wide), u, *own_BH)
    if old is not None:
      # h comes from the new c, not from what stays of it, as in the paper.
      new = tuple(o * a + (1 - o) * b for o, a, b in zip(old, state, new, strict=True))
    if nudge is not None:
      new = (new[0] + nudge, *new[1:])
    if length_B is None:
      return new, (new[0], saved)
    inside = (t < length_B)[:, None]
    kept = tuple(jnp.where(inside, a, b) for a, b in zip(new, state, strict=True))
    return kept, (jnp.where(inside, new[0], 0), saved)

  steps = jnp.arange(x_TBG.shape[0], dtype=jnp.int32)
  state, (h_TBH, saved) = lax.scan(
    body, state, (steps, x_TBG, nudge_TBH, noise.old), reverse=reverse
  )
  return (h_TBH, state), saved


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _unroll(cell, reverse, x_TBG, kernel, bias, own, state, length_B, nudge_TBH, noise):
  args = (x_TBG, kernel, bias, own, state, length_B, nudge_TBH, noise)
  return _scan(cell, reverse, *args, save=False)[0]


def _unroll_forward(cell, reverse, *args):
  found, (u_TBG, old) = _scan(cell, reverse, *args, save=True)
  return found, (args, u_TBG, old)


def _unroll_backward(cell, reverse, residuals, slopes):
  (x_TBG, kernel, bias, own, _, length_B, nudge_TBH, noise), u_TBG, before = residuals
  dh_TBH, d_state = slopes
  wide, noise = u_TBG.dtype, noise or Noise()
  own_BH = by_row(own, d_state[0])

  def body(carry, inputs):
    d_state, d_own = carry
    t, x, u, before, dh, old = inputs
    d_new = (d_state[0] + dh, *d_state[1:])
    _, pull = jax.vjp(cell.step, before, x.astype(wide), u, *own_BH)
    if old is None:
      d_old, dx, du, *more = pull(d_new)
    else:
      parts = tuple((1 - o) * d for o, d in zip(old, d_new, strict=True))
      d_old, dx, du, *more = pull(parts)
      d_old = tuple(a + o * d for a, o, d in zip(d_old, old, d_new, strict=True))
    if length_B is not None:
      inside = (t < length_B)[:, None]
      dx, du, *more = (jnp.where(inside, x, 0) for x in (dx, du, *more))
    d_h = product(
      du.astype(kernel.dtype), kernel, transpose_b=True, preferred_element_type=wide
    )
    d_old = (d_old[0] + _dropped(d_h, noise), *d_old[1:])
    d_nudge = None if nudge_TBH is None else d_new[0]
    if length_B is not None:
      d_old = tuple(
        jnp.where(inside, a, b) for a, b in zip(d_old, d_state, strict=True)
      )
      d_nudge = None if d_nudge is None else jnp.where(inside, d_nudge, 0)
    d_own = tuple(total + x.sum(0) for total, x in zip(d_own, more, strict=True))
    return (d_old, d_own), (dx, du, d_nudge)

  steps = jnp.arange(x_TBG.shape[0], dtype=jnp.int32)
  none = tuple(jnp.zeros(x.shape, wide) for x in own)
  (d_state, d_own), (dx_TBG, du_TBG, d_nudge) = lax.scan(
    body,
    (d_state, none),
    (steps, x_TBG, u_TBG, before, dh_TBH, noise.old),
    reverse=not reverse,
  )
  weights = _weight_gradients(_dropped(before[0], noise), du_TBG, kernel, bias)
  d_own = tuple(d.astype(x.dtype) for d, x in zip(d_own, own, strict=True))
  return dx_TBG.astype(x_TBG.dtype), *weights, d_own, d_state, None, d_nudge, None


_unroll.defvjp(_unroll_forward, _unroll_backward)


def shares_of_gradient(
  score: Callable[[Array], Array], h_TBH: Array, length_B: Array
) -> Array:
  """How much scores depend on the state after each step, over that on the last.

  Args:
    score: nudge_TBH (see `unroll`) -> one score a row, of its state at the end.
    h_TBH: zeros of the shape and dtype of all states.
    length_B: steps of each row.

  Returns:
    [T, B]: the norm of d score / d h after a step over that after the row's last.
  """
  norm_TB = euclidean_norm(jax.grad(lambda x: score(x).sum())(h_TBH))
  last_B = jnp.where(_steps_back(length_B, len(h_TBH)) == 0, norm_TB, 0).sum(0)
  return norm_TB / jnp.maximum(last_B, jnp.finfo(h_TBH.dtype).tiny)[None]


def mean_by_distance(share_TB: Array, length_B: Array) -> Array:
  """Means of `shares_of_gradient` by the distance from a row's last step.

  Returns:
    [T]: at distance n the mean over the rows of more than n steps; nan where there is
    none.
  """
  back_TB = _steps_back(length_B, len(share_TB))

  def at(distance):
    hit_TB = back_TB == distance
    return jnp.where(hit_TB, share_TB, 0).sum() / hit_TB.sum()

  return jax.vmap(at)(jnp.arange(len(share_TB)))


def _steps_back(length_B: Array, steps: int) -> Array:
  """[T, B]: steps from each to the last of its row; below 0 past the end."""
  return length_B[None] - 1 - jnp.arange(steps)[:, None]
