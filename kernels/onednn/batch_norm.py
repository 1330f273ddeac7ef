"""Batch normalisation and its derivative as calls of C++ on the CPU.

Rows are float32 or bfloat16, all alike; scale, bias and statistics are float32.

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
    epsilon: added to the variance.
    leak: the activation is z where z > 0, leak * z elsewhere: 0 is ReLU, 1 is none.
  """

  epsilon: float
  leak: float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(
  form: Form, x_NC: Array, added_NC: Array, scale_C: Array, bias_C: Array
) -> tuple[Array, Array, Array, Array]:
  """(y [N, C], mean, variance, 1 / standard deviation [C]) over the rows.

  y = activation(scale * (x - mean) / deviation + bias + added).

  Args:
    form: a NamedTuple, hashable.
    x_NC: rows, channels.
    added_NC: like x, or [0, C]: nothing.
    scale_C, bias_C: of every row.
  """
  args = (x_NC, added_NC, scale_C, bias_C)
  return calls.on_cpu(_call_forward, plain_forward, form, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def backward(
  form: Form,
  x_NC: Array,
  y_NC: Array,
  scale_C: Array,
  bias_C: Array,
  mean_C: Array,
  root_C: Array,
  dy_NC: Array,
  d_mean_C: Array,
  d_var_C: Array,
) -> tuple[Array, Array, Array, Array]:
  """(dx [N, C], dadded like `y_NC`, dscale and dbias [C]).

  Args:
    form: see `forward`.
    x_NC, scale_C, bias_C: as given to `forward`.
    y_NC: what it gave where something was added, else [0, C].
    mean_C, root_C: as it gave them.
    dy_NC, d_mean_C, d_var_C: slopes of its results but the last.
  """
  args = (x_NC, y_NC, scale_C, bias_C, mean_C, root_C, dy_NC, d_mean_C, d_var_C)
  return calls.on_cpu(_call_backward, plain_backward, form, *args)


def plain_forward(form: Form, x_NC, added_NC, scale_C, bias_C):
  """`forward` in any dtype; sums are in float32 or wider."""
  wide = calls.wide(x_NC)
  mean_C = wide.mean(0)
  centred_NC = wide - mean_C[None]
  var_C = (centred_NC * centred_NC).mean(0)
  root_C = lax.rsqrt(var_C + form.epsilon)
  slope_C, bias_C = root_C * calls.wide(scale_C), calls.wide(bias_C)
  z_NC = centred_NC * slope_C[None] + bias_C[None]
  if added_NC.shape[0]:
    z_NC = z_NC + calls.wide(added_NC)
  y_NC = jnp.where(z_NC > 0, z_NC, form.leak * z_NC)
  return y_NC.astype(x_NC.dtype), mean_C, var_C, root_C


def plain_backward(
  form: Form, x_NC, y_NC, scale_C, bias_C, mean_C, root_C, dy_NC, d_mean_C, d_var_C
):
  """`backward` in any dtype."""
  n, scale_C = x_NC.shape[0], calls.wide(scale_C)
  centred_NC, dy_NC = calls.wide(x_NC) - mean_C[None], calls.wide(dy_NC)
  slope_C = root_C * scale_C
  z_NC = centred_NC * slope_C[None] + calls.wide(bias_C)[None]
  d_NC = jnp.where((y_NC if y_NC.shape[0] else z_NC) > 0, dy_NC, form.leak * dy_NC)
  sum_C, along_C = d_NC.sum(0), (d_NC * centred_NC).sum(0)
  of_x_C = (2 * d_var_C - slope_C * root_C**2 * along_C) / n
  rest_C = (d_mean_C - slope_C * sum_C) / n
  dx_NC = d_NC * slope_C[None] + centred_NC * of_x_C[None] + rest_C[None]
  return (
    dx_NC.astype(x_NC.dtype),
    d_NC[: y_NC.shape[0]].astype(x_NC.dtype),
    (along_C * root_C).astype(scale_C.dtype),
    sum_C.astype(bias_C.dtype),
  )


def _call_forward(form: Form, x_NC, added_NC, scale_C, bias_C):
  call = calls.typed('dlx_batch_norm_forward', x_NC, *[scale_C] * 3)
  attributes = {'epsilon': np.float32(form.epsilon), 'leak': np.float32(form.leak)}
  return tuple(call(x_NC, added_NC, scale_C, bias_C, **attributes))


def _call_backward(
  form: Form, x_NC, y_NC, scale_C, bias_C, mean_C, root_C, dy_NC, *slopes_C
):
  call = calls.typed('dlx_batch_norm_backward', x_NC, y_NC, scale_C, scale_C)
  of_C = (scale_C, bias_C, mean_C, root_C, *slopes_C)
  return tuple(call(x_NC, y_NC, dy_NC, *of_C, leak=np.float32(form.leak)))


calls.differentiate_plain(forward, plain_forward)
calls.differentiate_plain(backward, plain_backward)
