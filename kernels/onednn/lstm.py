"""An LSTM along time and its derivative, as calls of C++ on the CPU.

Arrays are float32; the kernel also bfloat16, and then the products with it are. The
products of matrices in them are oneDNN's. Other platforms compute the plain form
below, a scan, which is also what derivatives of the two are taken of. Under vmap a call
is made for each row. dlx.layers.recurrent.unroll ties the two together.
"""

import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from kernels.onednn import calls

Array = jax.Array


class Forward(NamedTuple):
  """What `forward` returns.

  Attributes:
    h_TBH: outputs, 0 past the end of a row.
    h_BH, c_BH: the state after each row's last step.
    gates_TBG: input, forget, cell and output after their activations, 0 past the end.
    old_h_TBH, old_c_TBH: the state before every step.
  """

  h_TBH: Array
  h_BH: Array
  c_BH: Array
  gates_TBG: Array
  old_h_TBH: Array
  old_c_TBH: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(
  reverse: bool,
  x_TBG: Array,
  kernel_HG: Array,
  bias_G: Array,
  h_BH: Array,
  c_BH: Array,
  length_B: Array,
) -> Forward:
  """Every step of rows of `length_B` i32 tokens; the state stands still after them.

  Args:
    reverse: from each row's last step to its first.
    x_TBG: projected inputs with their bias.
    kernel_HG: of the product with the old output.
    bias_G: added to that product.
    h_BH, c_BH: the state before the first step.
    length_B: 0 to T.
  """
  args = (x_TBG, kernel_HG, bias_G, h_BH, c_BH, length_B)
  return calls.on_cpu(_call_forward, plain_forward, reverse, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def backward(
  reverse: bool,
  dh_TBH: Array,
  last_dh_BH: Array,
  last_dc_BH: Array,
  gates_TBG: Array,
  old_c_TBH: Array,
  kernel_HG: Array,
  length_B: Array,
) -> tuple[Array, Array, Array]:
  """(dx [T, B, G], and dh, dc [B, H] of the state before the first step)."""
  args = (dh_TBH, last_dh_BH, last_dc_BH, gates_TBG, old_c_TBH, kernel_HG, length_B)
  return calls.on_cpu(_call_backward, plain_backward, reverse, *args)


def _call_forward(reverse, x_TBG, kernel_HG, bias_G, h_BH, c_BH, length_B):
  steps, state = (*x_TBG.shape[:2], kernel_HG.shape[0]), h_BH.shape
  shapes = (steps, state, state, x_TBG.shape, steps, steps)
  call = calls.float32('dlx_onednn_lstm_forward', shapes)
  return Forward(
    *call(x_TBG, kernel_HG, bias_G, h_BH, c_BH, length_B, reverse=bool(reverse))
  )


def _call_backward(reverse, *args):
  gates_TBG, last_dh_BH = args[3], args[1]
  shapes = (gates_TBG.shape, last_dh_BH.shape, last_dh_BH.shape)
  dx, dh, dc = calls.float32('dlx_onednn_lstm_backward', shapes)(
    *args, reverse=bool(reverse)
  )
  return dx, dh, dc


def plain_forward(reverse, x_TBG, kernel_HG, bias_G, h_BH, c_BH, length_B) -> Forward:
  """`forward` as a scan, in any dtype."""

  def step(state, inputs):
    h_BH, c_BH = state
    t, x_BG = inputs
    x_BG = x_BG + (_product(h_BH, kernel_HG) + bias_G[None])
    i, f, g, o = jnp.split(x_BG, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    inside = (t < length_B)[:, None]
    new_c = jnp.where(inside, f * c_BH + i * g, c_BH)
    new_h = jnp.where(inside, o * jnp.tanh(new_c), h_BH)
    gates_BG = jnp.where(inside, jnp.concatenate([i, f, g, o], axis=-1), 0)
    return (new_h, new_c), (jnp.where(inside, new_h, 0), gates_BG, h_BH, c_BH)

  steps = jnp.arange(x_TBG.shape[0], dtype=jnp.int32)
  (h_BH, c_BH), (h_TBH, *saved) = lax.scan(
    step, (h_BH, c_BH), (steps, x_TBG), reverse=reverse
  )
  return Forward(h_TBH, h_BH, c_BH, *saved)


def plain_backward(
  reverse, dh_TBH, last_dh_BH, last_dc_BH, gates_TBG, old_c_TBH, kernel_HG, length_B
) -> tuple[Array, Array, Array]:
  """`backward` as a scan, in any dtype."""

  def step(slopes, inputs):
    after_h, after_c = slopes
    t, dh_BH, gates_BG, c_BH = inputs
    i, f, g, o = jnp.split(gates_BG, 4, axis=-1)
    inside = (t < length_B)[:, None]
    tanh = jnp.tanh(f * c_BH + i * g)
    dh = dh_BH + after_h
    dc = after_c + dh * o * (1 - tanh**2)
    parts = [
      dc * g * i * (1 - i),
      dc * c_BH * f * (1 - f),
      dc * i * (1 - g**2),
      dh * tanh * o * (1 - o),
    ]
    dx_BG = jnp.where(inside, jnp.concatenate(parts, axis=-1), 0)
    before = jnp.where(inside, _product(dx_BG, kernel_HG.T), after_h)
    return (before, jnp.where(inside, dc * f, after_c)), dx_BG

  steps = jnp.arange(dh_TBH.shape[0], dtype=jnp.int32)
  (dh_BH, dc_BH), dx_TBG = lax.scan(
    step,
    (last_dh_BH, last_dc_BH),
    (steps, dh_TBH, gates_TBG, old_c_TBH),
    reverse=not reverse,
  )
  return dx_TBG, dh_BH, dc_BH


def _product(x: Array, kernel: Array) -> Array:
  """In the dtype of the kernel, summed in that of x."""
  return jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=x.dtype)


calls.differentiate_plain(forward, plain_forward, whole=1)
calls.differentiate_plain(backward, plain_backward, whole=1)
