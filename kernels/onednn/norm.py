"""Group normalisation and its derivative as calls of C++ on the CPU.

x, y and their slopes are float32 or bfloat16, all alike; slope, bias and statistics
are float32.

Other platforms compute the plain forms below, which is also what derivatives of the two
are taken of. Under vmap a call is made for each row. dlx.layers.normalisation ties the
two together.
"""

import functools
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from kernels.onednn import calls

Array = jax.Array


class Form(NamedTuple):
  """What is computed.

  Attributes:
    groups: of channels, all alike; a divisor of C.
    epsilon: added to the variance.
    silu: z * sigmoid(z) of the result.
  """

  groups: int
  epsilon: float
  silu: bool


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(
  form: Form, x_BPC: Array, slope_SC: Array, bias_SC: Array
) -> tuple[Array, Array, Array]:
  """(y [B, P, C], mean [B, G], 1 / standard deviation [B, G]).

  y = slope * (x - mean) / deviation + bias, both over an example's positions and a
  group's channels.

  Args:
    form: a NamedTuple, hashable.
    x_BPC: examples, positions, channels.
    slope_SC, bias_SC: of every example (S = B), or of all (S = 1).
  """
  args = (x_BPC, slope_SC, bias_SC)
  return calls.on_cpu(_call_forward, plain_forward, form, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def backward(
  form: Form,
  x_BPC: Array,
  slope_SC: Array,
  bias_SC: Array,
  mean_BG: Array,
  root_BG: Array,
  dy_BPC: Array,
) -> tuple[Array, Array, Array]:
  """(dx [B, P, C], dslope and dbias [S, C]); mean and root as `forward` gave them."""
  args = (x_BPC, slope_SC, bias_SC, mean_BG, root_BG, dy_BPC)
  return calls.on_cpu(_call_backward, plain_backward, form, *args)


def plain_forward(form: Form, x_BPC, slope_SC, bias_SC) -> tuple[Array, Array, Array]:
  """`forward` in any dtype; sums are in float32 or wider."""
  wide = calls.wide(x_BPC)
  count = x_BPC.shape[1] * x_BPC.shape[2] // form.groups
  mean_BG = _of_groups(form, wide.sum(1)) / count
  # In a pass of its own, so that a large mean costs no accuracy.
  centred = wide - _of_channels(mean_BG, wide.shape[2])[:, None]
  root_BG = lax.rsqrt(
    _of_groups(form, (centred * centred).sum(1)) / count + form.epsilon
  )
  z = _centred(wide, mean_BG, root_BG) * calls.wide(slope_SC)[:, None]
  z = z + calls.wide(bias_SC)[:, None]
  y = z * jax.nn.sigmoid(z) if form.silu else z
  return y.astype(x_BPC.dtype), mean_BG, root_BG


def plain_backward(
  form: Form, x_BPC, slope_SC, bias_SC, mean_BG, root_BG, dy_BPC
) -> tuple[Array, Array, Array]:
  """`backward` in any dtype."""
  u = _centred(calls.wide(x_BPC), mean_BG, root_BG)
  slope, d = calls.wide(slope_SC)[:, None], calls.wide(dy_BPC)
  if form.silu:
    z = u * slope + calls.wide(bias_SC)[:, None]
    s = jax.nn.sigmoid(z)
    d = d * (s * (1 + z * (1 - s)))
  sum_BC, along_BC = d.sum(1), (d * u).sum(1)
  count = x_BPC.shape[1] * x_BPC.shape[2] // form.groups

  def mean(of_BC):
    of_BG = _of_groups(form, calls.wide(slope_SC) * of_BC) / count
    return _of_channels(of_BG, x_BPC.shape[2])[:, None]

  root = _of_channels(root_BG, x_BPC.shape[2])[:, None]
  dx = root * (slope * d - mean(sum_BC) - u * mean(along_BC))
  if slope_SC.shape[0] == 1:
    sum_BC, along_BC = (v.sum(0, keepdims=True) for v in (sum_BC, along_BC))
  return (
    dx.astype(x_BPC.dtype),
    along_BC.astype(slope_SC.dtype),
    sum_BC.astype(bias_SC.dtype),
  )


def _of_groups(form: Form, of_BC: Array) -> Array:
  rows, channels = of_BC.shape
  return of_BC.reshape(rows, form.groups, channels // form.groups).sum(-1)


def _of_channels(of_BG: Array, channels: int) -> Array:
  return jnp.repeat(of_BG, channels // of_BG.shape[1], axis=1)


def _centred(x_BPC: Array, mean_BG: Array, root_BG: Array) -> Array:
  channels = x_BPC.shape[2]
  mean, root = (_of_channels(v, channels)[:, None] for v in (mean_BG, root_BG))
  return (x_BPC - mean) * root


def _call_forward(form: Form, x_BPC, slope_SC, bias_SC):
  of_BG = jax.ShapeDtypeStruct((x_BPC.shape[0], form.groups), jnp.float32)
  call = calls.typed('dlx_norm_forward', x_BPC, of_BG, of_BG)
  return tuple(
    call(
      x_BPC, slope_SC, bias_SC, groups=np.int64(form.groups),
      epsilon=np.float32(form.epsilon), silu=form.silu,
    )
  )  # fmt: skip


def _call_backward(form: Form, x_BPC, slope_SC, bias_SC, mean_BG, root_BG, dy_BPC):
  call = calls.typed('dlx_norm_backward', x_BPC, slope_SC, slope_SC)
  args = (x_BPC, dy_BPC, slope_SC, bias_SC, mean_BG, root_BG)
  return tuple(call(*args, groups=np.int64(form.groups), silu=form.silu))


calls.differentiate_plain(forward, plain_forward)
calls.differentiate_plain(backward, plain_backward)
