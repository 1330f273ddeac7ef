"""Layers that most convolutional nets make in the same way."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlx.layers.convolution import Conv
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import BatchNorm

# He et al. (arXiv 1502.01852): variance 2 / (inputs of a unit going backward).
HE = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv_and_norm(net: Any, train: bool, **of_norm: Any) -> tuple[Any, Any]:
  """What makes the convolutions of a net, without a bias, and its batch norms.

  Both take further fields of their layers, and a name.

  Args:
    net: has `momentum` of the running statistics, `dtype` and `param_dtype`.
    train: norms use and update statistics of the batch.
    of_norm: fields of BatchNorm; its epsilon is 1e-5 unless given.
  """
  dtypes = {'dtype': net.dtype, 'param_dtype': net.param_dtype}
  conv = functools.partial(Conv, use_bias=False, kernel_init=HE, **dtypes)
  norm = functools.partial(
    BatchNorm, not train, momentum=net.momentum, **dtypes, **of_norm
  )
  return conv, norm


def output_layer(net: Any, **fields: Any) -> Dense:
  """The Dense `head` of a net, at least float32; of a method that is compact.

  Args:
    net: has `num_outputs`, `dtype` and `param_dtype`.
    fields: of Dense.
  """
  return Dense(
    net.num_outputs,
    dtype=jnp.promote_types(net.dtype, jnp.float32),
    param_dtype=net.param_dtype,
    name='head',
    **fields,
  )
