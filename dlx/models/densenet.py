"""Densely connected networks (Huang et al., arXiv 1608.06993) for CIFAR and ImageNet.

cifar_densenet(40, growth=12)                     plain: 1.0 M parameters
cifar_densenet(100, growth=12, bottleneck=True)   DenseNet-BC: 0.8 M
imagenet_densenet(121)                            121, 161, 169, 201, 264: BC

Each layer of a block reads the features of all layers before it, joined by channels,
and adds `growth` of its own. `remat` keeps what convolutions give and computes joined
and normalised features again on the way back (arXiv 1707.06990), so that memory grows
with the depth of a block, not with its square: the gradient of 24 layers BC of k=4 at
16 x 16, batch 8, takes 7.7 MB, and 33.4 without (CPU, jax 0.11.2; on jax 0.10.2 XLA:CPU
merges the two computations, and nothing is saved there).
"""

import functools
from typing import Any, Sequence

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.pooling import avg_pool, max_pool
from dlx.models.net_layers import conv_and_norm, output_layer

BLOCKS = {  # Layers of each block, and the growth.
  121: ((6, 12, 24, 16), 32),
  161: ((6, 12, 36, 24), 48),
  169: ((6, 12, 32, 32), 32),
  201: ((6, 12, 48, 32), 32),
  264: ((6, 12, 64, 48), 32),
}
_KEPT = 'densenet_convolution'  # Outputs that remat keeps.


class DenseNet(nn.Module):
  """Stem, dense blocks with transitions between them, norm, global pool, Dense.

  Layers are `stem`, `block1_layer1` with `norm1` and `conv1` (and `norm2`, `conv2`),
  `transition1` with `norm` and `conv`, `norm` and `head`, in the order of torchvision's
  `denseblock1.denselayer1`, `transition1`, `norm5` and `classifier`.

  Attributes:
    blocks: layers of each block.
    growth: channels that a layer adds, the paper's k.
    stem_channels: of the first convolution.
    bottleneck: layers of 1x1 to 4 * growth channels and 3x3, instead of one 3x3 (the
      paper's B).
    compression: share of the channels that a transition keeps, rounded down (the
      paper's theta; below 1 it is the C of BC).
    num_outputs: K.
    stem: 'cifar', a 3x3 convolution; 'imagenet', 7x7 of stride 2, batch norm, ReLU and
      a 3x3 max pool of stride 2.
    dropout: share of what each convolution but the stem gives that is dropped; 0.2 in
      the paper where data are not augmented.
    remat: see above; values and gradients are the same.
    momentum: of the running statistics, `momentum * old + (1 - momentum) * new`.
    dtype: of the arithmetic; the output layer is at least float32.
    param_dtype: of the parameters.
  """

  blocks: Sequence[int]
  growth: int = 12
  stem_channels: int = 16
  bottleneck: bool = False
  compression: float = 1.0
  num_outputs: int = 10
  stem: str = 'cifar'
  dropout: float = 0.0
  remat: bool = False
  momentum: float = 0.9
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], float32 or wider.

    Args:
      train: drop features (rng 'dropout'), use and update statistics of the batch
        (collection 'batch_stats').

    Raises:
      ConfigError: images too small for the transitions.
    """
    return self.forward(x_BHWC, train)[0]

  def features(self, x_BHWC: jax.Array, train: bool = False) -> jax.Array:
    """What `head` reads [B, C]: the mean over all positions."""
    return self.forward(x_BHWC, train)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Logits and features."""
    conv, norm = conv_and_norm(self, train, leak=0.0)  # A ReLU follows each.
    drop = functools.partial(nn.Dropout, self.dropout, deterministic=not train)
    layer: Any = DenseLayer
    if self.remat:
      policy = jax.checkpoint_policies.save_only_these_names(_KEPT)
      layer = nn.remat(DenseLayer, policy=policy)
    if self.stem == 'imagenet':
      x_BHWC = conv(self.stem_channels, (7, 7), (2, 2), padding=3, name='stem')(x_BHWC)
      x_BHWC = norm(name='stem_norm')(x_BHWC)
      x_BHWC = max_pool(x_BHWC, (3, 3), (2, 2), ((1, 1), (1, 1)))
    else:
      x_BHWC = conv(self.stem_channels, (3, 3), padding=1, name='stem')(x_BHWC)
    for i, count in enumerate(self.blocks, 1):
      features = [x_BHWC]
      for j in range(1, count + 1):
        if self.remat:
          # On the way back gradients are summed layer by layer: XLA alone keeps each
          # layer's part until all are there, which is the square again.
          features = list(jax.lax.optimization_barrier(features))
        name = f'block{i}_layer{j}'
        dense = layer(self.growth, self.bottleneck, conv, norm, drop, name=name)
        features.append(dense(*features))
      x_BHWC = jnp.concatenate(features, axis=-1)
      if i < len(self.blocks):
        channels = max(1, int(x_BHWC.shape[-1] * self.compression))
        x_BHWC = Transition(channels, conv, norm, drop, name=f'transition{i}')(x_BHWC)
    x_BHWC = norm(name='norm')(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x_BC = x_BHWC.astype(wide).mean((1, 2))
    return output_layer(self)(x_BC), x_BC


class DenseLayer(nn.Module):
  """The features that a layer adds: batch norm, ReLU, 3x3 of all that is before it.

  See DenseNet for `growth` and `bottleneck`; `conv`, `norm` and `drop` make the layers.
  """

  growth: int
  bottleneck: bool
  conv: Any
  norm: Any
  drop: Any

  @nn.compact
  def __call__(self, *features_BHWC: jax.Array) -> jax.Array:
    """Features of each layer before this, [B, H, W, C] -> [B, H, W, growth]."""
    x_BHWC = jnp.concatenate(features_BHWC, axis=-1)
    sizes = ((4 * self.growth, 1), (self.growth, 3))
    for n, (channels, size) in enumerate(sizes if self.bottleneck else sizes[1:], 1):
      x_BHWC = self.norm(name=f'norm{n}')(x_BHWC)
      conv = self.conv(channels, (size, size), padding=size // 2, name=f'conv{n}')
      x_BHWC = checkpoint_name(conv(x_BHWC), _KEPT)
      x_BHWC = self.drop(name=f'dropout{n}')(x_BHWC)
    return x_BHWC


class Transition(nn.Module):
  """Batch norm, ReLU, 1x1 convolution, 2x2 average pool: halves height and width."""

  channels: int
  conv: Any
  norm: Any
  drop: Any

  @nn.compact
  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    x_BHWC = self.norm(name='norm')(x_BHWC)
    x_BHWC = self.conv(self.channels, (1, 1), padding=0, name='conv')(x_BHWC)
    return avg_pool(self.drop(name='dropout')(x_BHWC))


def cifar_densenet(
  depth: int, *, growth: int = 12, bottleneck: bool = False, **fields: Any
) -> DenseNet:
  """The CIFAR family: three blocks at 32, 16 and 8 pixels.

  Args:
    depth: layers with weights, 3 n + 4 (40, 100), with bottlenecks 6 n + 4 (100, 190,
      250). The paper's parameter counts: 1.0 M of (40, 12), 7.0 M of (100, 12), 27.2 M
      of (100, 24); with bottlenecks 0.8 M of (100, 12), 15.3 M of (250, 24), 25.6 M of
      (190, 40).
    growth: the paper's k.
    bottleneck: DenseNet-BC, a compression of 0.5 and 2 * growth channels of the stem;
      False: plain, 16 channels.
    fields: of DenseNet.

  Raises:
    ConfigError: a depth of another form.
  """
  step = 6 if bottleneck else 3
  if depth < 4 + step or (depth - 4) % step:
    examples = '22, 40, 100 or 250' if bottleneck else '22, 40 or 100'
    name = 'CIFAR DenseNet-BC' if bottleneck else 'CIFAR DenseNet'
    raise ConfigError(
      f'depth={depth} is not allowed for a {name}: must be {step} n + 4 with n at '
      f'least 1, such as {examples}.'
    )
  form = {
    'stem_channels': 2 * growth if bottleneck else 16,
    'compression': 0.5 if bottleneck else 1.0,
  }
  blocks = ((depth - 4) // step,) * 3
  return DenseNet(
    **{'blocks': blocks, 'growth': growth, 'bottleneck': bottleneck, **form, **fields}
  )


def imagenet_densenet(
  depth: int, *, growth: int | None = None, **fields: Any
) -> DenseNet:
  """The ImageNet family, all of them BC: 121, 161, 169, 201, 264 layers.

  Args:
    depth: the paper's 121 (8.0 M parameters, 2.8 G multiply-adds), 169 (14.1 M, 3.4 G),
      201 (20.0 M, 4.3 G), 264 (33.3 M), or 161 (28.7 M, 7.7 G).
    growth: None: 32, of 161 layers 48; the stem has twice as many channels.
    fields: of DenseNet; stem is 'imagenet' unless given: 'cifar' for 32 x 32 images.

  Raises:
    ConfigError: another depth.
  """
  if depth not in BLOCKS:
    raise ConfigError(
      f'depth={depth} is not allowed for an ImageNet DenseNet: must be one of '
      f'{", ".join(map(str, BLOCKS))}.'
    )
  blocks, usual = BLOCKS[depth]
  growth = usual if growth is None else growth
  return DenseNet(
    **{
      'blocks': blocks,
      'growth': growth,
      'stem_channels': 2 * growth,
      'bottleneck': True,
      'compression': 0.5,
      'stem': 'imagenet',
      **fields,
    }
  )
