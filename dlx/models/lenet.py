"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998, doi:10.1109/5.726791) and its heir.

LeNet5   as in the paper: scaled tanh, subsampling with weights, a table of connections,
         distances to fixed codes; 60,000 trained parameters
LeNet    as it is built today: ReLU, max pools, full connections; 61,706 parameters

Both read 32 x 32 images. Layers have the paper's names: c1 and c3 are convolutions, s2
and s4 subsample, c5 and f6 are dense, `head` follows.
"""

import math
from typing import Any, Sequence

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv, conv_general_dilated
from dlx.layers.matmul import Dense
from dlx.layers.pooling import avg_pool, max_pool
from dlx.models.net_layers import output_layer

SIDE = 32  # Pixels of an image of the paper's net.
# Table 1 of the paper: which maps of s2 each map of c3 reads.
CONNECTIONS = (
  *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
  *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)),
  *((0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
  *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
# Bitmaps of the ten digits, 12 rows of 7, in the manner of the paper's Figure 3.
_DIGITS = """
..###.. ...##.. ..###.. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. .##.##. ##...## ...###. ##..... .##.... .....## ##...## ##...##
##...## .####.. ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## ....##. ##..##. ######. ##.###. ....##. .##.##. ##...##
##...## ...##.. ....##. ..###.. ##..##. ##...## ###..## ...##.. ..###.. .######
##...## ...##.. ...##.. ....##. ####### .....## ##...## ...##.. .##.##. ..##.##
##...## ...##.. ..##... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## ....##.
.##.##. ...##.. ##..... ##...## ....##. .##.##. .##.##. .##.... ##...## ...##..
..###.. .###### ####### .#####. ....##. ..###.. ..###.. .##.... .#####. .###...
"""


def scaled_tanh(x: jax.Array) -> jax.Array:
  """1.7159 tanh(2 x / 3): 1 at 1 and -1 at -1 (appendix A of the paper)."""
  return 1.7159 * jnp.tanh(2 / 3 * x)


def codes(num_outputs: int) -> np.ndarray:
  """What the 84 units before the output should be for each class: -1 or 1, [K, 84].

  Bitmaps of the ten digits, 12 x 7; classes from the eleventh on have random signs,
  the same at every call.
  """
  rows = [line.split() for line in _DIGITS.strip().splitlines()]
  digits = [[c == '#' for row in rows for c in row[n]] for n in range(10)]
  drawn = np.random.default_rng(0).random((max(0, num_outputs - 10), 84)) < 0.5
  chosen = np.concatenate([digits, drawn])[:num_outputs]
  return np.where(chosen, 1, -1).astype(np.float32)


class LeNet5(nn.Module):
  """The net of 1998, whose outputs are minus squared distances to `codes`.

  60,000 parameters, as the paper counts them: c1 156, s2 12, c3 1516, s4 32, c5 48120,
  f6 10164. The 840 numbers of the codes are fixed and not among them. Weights begin
  uniform in +-2.4 / inputs of their unit.

  Attributes:
    num_outputs: K.
    dtype: of the arithmetic; the distances are at least float32.
    param_dtype: of the parameters.
  """

  num_outputs: int = 10
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider, at most 0.

    Args:
      x_BHWC: images of 32 x 32.
      train: nothing differs.

    Raises:
      ConfigError: images of another size.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What is compared with the codes [B, 84]."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    del train
    _check_side(x_BHWC)
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    begin = {'kernel_init': _by_inputs, **dtypes}
    x = Conv(6, (5, 5), padding='VALID', name='c1', **begin)(x_BHWC)
    x = Subsampling(name='s2', **dtypes)(scaled_tanh(x))
    x = TableConv(CONNECTIONS, name='c3', **dtypes)(scaled_tanh(x))
    x = Subsampling(name='s4', **dtypes)(scaled_tanh(x))
    x_BF = scaled_tanh(x).reshape(x.shape[0], -1)
    x_BF = scaled_tanh(Dense(120, name='c5', **begin)(x_BF))
    x_BF = scaled_tanh(Dense(84, name='f6', **begin)(x_BF))
    wide = x_BF.astype(jnp.promote_types(self.dtype, jnp.float32))
    apart_BKF = wide[:, None] - jnp.asarray(codes(self.num_outputs), wide.dtype)[None]
    return -jnp.square(apart_BKF).sum(-1), x_BF


class LeNet(nn.Module):
  """Two blocks of 5x5 convolution, ReLU, 2x2 max pool; then three Dense.

  At 32 x 32 x 1 61,706 parameters: c1 156, c3 2416, c5 48120, f6 10164, head 850.

  Attributes:
    channels: of c1 and c3.
    dense: units of c5 and f6.
    num_outputs: K.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  channels: tuple[int, int] = (6, 16)
  dense: tuple[int, int] = (120, 84)
  num_outputs: int = 10
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images of at least 16 x 16; the sizes of the paper at 32 x 32.
      train: nothing differs.

    Raises:
      ConfigError: images that are too small.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, F]."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    del train
    if min(x_BHWC.shape[1:3]) < 16:
      raise ConfigError(
        f'Images of {x_BHWC.shape[1]} x {x_BHWC.shape[2]} are not allowed for LeNet: '
        'must be at least 16 x 16; resize or pad them.'
      )
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    begin = {'kernel_init': nn.initializers.he_normal(), **dtypes}
    x = x_BHWC
    for channels, name in zip(self.channels, ('c1', 'c3'), strict=True):
      x = Conv(channels, (5, 5), padding='VALID', name=name, **begin)(x)
      x = max_pool(nn.relu(x))
    x_BF = x.reshape(x.shape[0], -1)
    for units, name in zip(self.dense, ('c5', 'f6'), strict=True):
      x_BF = nn.relu(Dense(units, name=name, **begin)(x_BF))
    return output_layer(self)(x_BF), x_BF


class Subsampling(nn.Module):
  """scale_C * the sum of each 2 x 2 window + bias_C: two parameters a channel."""

  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    shape = (x_BHWC.shape[-1],)
    begin = lambda key, shape, dtype: _uniform(key, shape, dtype, 4)
    scale_C = self.param('scale', begin, shape, self.param_dtype)
    bias_C = self.param('bias', nn.initializers.zeros, shape, self.param_dtype)
    x, scale, bias = promote_dtype(x_BHWC, scale_C, bias_C, dtype=self.dtype)
    return 4 * avg_pool(x) * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class TableConv(nn.Module):
  """5x5 convolution whose outputs read some of the inputs each; no padding.

  Its `kernel` [5, 5, N] holds the N pairs of the table alone, output by output.

  Attributes:
    table: by output channel, the input channels that it reads.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  table: Sequence[Sequence[int]]
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    pairs = [(i, o) for o, inputs in enumerate(self.table) for i in inputs]
    reads, gives = np.array(pairs).T
    fan_in = 25 * np.array([len(self.table[o]) for o in gives])
    begin = lambda key, shape, dtype: _uniform(key, shape, dtype, fan_in[None, None])
    kernel = self.param('kernel', begin, (5, 5, len(pairs)), self.param_dtype)
    outputs = (len(self.table),)
    bias_C = self.param('bias', nn.initializers.zeros, outputs, self.param_dtype)
    x, kernel, bias = promote_dtype(x_BHWC, kernel, bias_C, dtype=self.dtype)
    full = jnp.zeros((5, 5, x.shape[-1], *outputs), kernel.dtype)
    full = full.at[:, :, reads, gives].set(kernel)
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    y = conv_general_dilated(x, full, (1, 1), 'VALID', dimension_numbers=dimensions)
    return y + bias.reshape(1, 1, 1, -1)


def _uniform(key, shape, dtype, fan_in) -> jax.Array:
  return jax.random.uniform(key, shape, dtype, -1, 1) * jnp.asarray(2.4 / fan_in, dtype)


def _by_inputs(key, shape, dtype=jnp.float32) -> jax.Array:
  return _uniform(key, shape, dtype, math.prod(shape[:-1]))


def _check_side(x_BHWC: jax.Array):
  if x_BHWC.shape[1:3] != (SIDE, SIDE):
    raise ConfigError(
      f'Images of {x_BHWC.shape[1]} x {x_BHWC.shape[2]} are not allowed for LeNet-5: '
      f'must be {SIDE} x {SIDE}; resize or pad them.'
    )
