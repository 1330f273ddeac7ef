"""The net that learns CIFAR-10 in seconds: airbench94 (arXiv:2404.00498).

A whitening convolution, blocks of two 3x3 convolutions with GELU, a maximum over
positions, one Dense whose outputs are small at first. It descends from the ResNets of
the DAWNBench contest (Page 2019), with no shortcut left.
"""

import math
from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.activations import gelu
from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm
from dlx.layers.pooling import max_pool
from dlx.layers.whitening import WhiteningConv
from dlx.models.net_layers import output_layer


def identity_first(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
  """A kernel [h, w, I, O] whose first outputs are the inputs, the others random.

  Of h and w odd the tap in the middle. Random entries are uniform with a variance of
  1 / (3 h w I), PyTorch's default.
  """
  height, width, inputs, outputs = shape
  bound = 1 / math.sqrt(height * width * inputs)
  kernel = jax.random.uniform(key, tuple(shape), dtype, -bound, bound)
  same = min(inputs, outputs)
  kernel = kernel.at[..., :same].set(0)
  middle = (height // 2, width // 2)
  return kernel.at[*middle, :, :same].set(jnp.eye(inputs, same, dtype=dtype))


def views(
  x_BHWC: jax.Array, flip: bool, shift: int
) -> tuple[list[jax.Array], list[float]]:
  """What a test image is shown as, and the share of each in the mean.

  Args:
    x_BHWC: images.
    flip: from left to right, too, in equal parts.
    shift: pixels by which it is moved, up and left and down and right, too, with
      reflected edges; the images as they are have half of the weight. 0: not moved.
  """
  found, shares = [x_BHWC], [1.0]
  if shift:
    height, width = x_BHWC.shape[1:3]
    pads = ((0, 0), (shift, shift), (shift, shift), (0, 0))
    padded = jnp.pad(x_BHWC, pads, mode='reflect')
    for at in (0, 2 * shift):
      found.append(padded[:, at : at + height, at : at + width])
    shares = [0.5, 0.25, 0.25]
  if flip:
    found += [x[:, :, ::-1] for x in found]
    shares = [share / 2 for share in shares] * 2
  return found, shares


class WhitenedCNN(nn.Module):
  """Whitening, blocks of convolution and pool and convolution, maximum, Dense.

  Batch norm has no scale, only a shift. Of 32 x 32 pixels three blocks see 31, 15, 7
  and leave 3 x 3. With channels (64, 256, 256) and ten classes that is airbench94.

  Layers are `whiten`, `block1_conv1`, `block1_norm1`, ..., and `head`.

  Attributes:
    channels: of the blocks; each halves height and width, rounded down.
    num_outputs: K.
    window: height and width of the patches that are whitened.
    output_scale: by which the outputs of `head` are multiplied.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    test_flip: logits of a test image are the mean over it and its mirror image.
    test_shift: pixels by which test images are shifted too, see `views`; 0: none.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  channels: Sequence[int] = (64, 256, 256)
  num_outputs: int = 10
  window: int = 2
  output_scale: float = 1 / 9
  momentum: float = 0.6
  test_flip: bool = False
  test_shift: int = 0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images; each block needs maps of 2 x 2 or more.
      train: use and update statistics of the batch (collection 'batch_stats'); the
        first such call fixes the whitening filters, by its images.

    Raises:
      ConfigError: images too small for the number of blocks.
    """
    if train:
      return self.forward(x_BHWC, train)[0]
    found, shares = views(x_BHWC, self.test_flip, self.test_shift)
    logits_BK = self.forward(jnp.concatenate(found), train)[0]
    logits_VBK = logits_BK.reshape(len(found), len(x_BHWC), -1)
    shares_V = jnp.asarray(shares, logits_VBK.dtype)
    return (shares_V[:, None, None] * logits_VBK).sum(0)

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the largest values over all positions."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features of the images as they are."""
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x_BHWC = WhiteningConv(self.window, name='whiten', **dtypes)(x_BHWC, train=train)
    x_BHWC = gelu(x_BHWC)
    for i, channels in enumerate(self.channels, 1):
      for j in (1, 2):
        x_BHWC = Conv(
          channels,
          (3, 3),
          use_bias=False,
          kernel_init=identity_first,
          name=f'block{i}_conv{j}',
          **dtypes,
        )(x_BHWC)
        if j == 1:
          x_BHWC = max_pool(x_BHWC)
        x_BHWC = BatchNorm(
          not train,
          momentum=self.momentum,
          use_scale=False,
          name=f'block{i}_norm{j}',
          **dtypes,
        )(x_BHWC)
        x_BHWC = gelu(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    _, height, width, _ = x_BHWC.shape
    x_BC = max_pool(x_BHWC, (height, width))[:, 0, 0].astype(wide)
    uniform: Any = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    head = output_layer(self, use_bias=False, kernel_init=uniform)
    return head(x_BC) * self.output_scale, x_BC
