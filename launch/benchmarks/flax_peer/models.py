"""The workloads' models as Flax's own examples write them: flax.linen and nothing else.

The same maths and, but for what torch_models also renames, the same parameters as the
models of dlx/models; the layers are flax's (nn.Conv, nn.max_pool, nn.ConvTranspose,
nn.RNN, nn.MultiHeadDotProductAttention), layers of a transformer are a Python loop.
`dtype` is that of the arithmetic, where a model is measured in bfloat16, too.
"""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class MLP(nn.Module):
  """Dense and ReLU."""

  features: Sequence[int]
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = x.reshape(len(x), -1)
    for i, width in enumerate(self.features):
      x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f'hidden_{i}')(x))
    return nn.Dense(10, dtype=self.dtype, name='head')(x)


class CNN(nn.Module):
  """Convolution, batch norm, ReLU, max pool; two Dense."""

  features: Sequence[int]
  dense: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i, width in enumerate(self.features):
      x = nn.Conv(width, (3, 3), use_bias=False, dtype=self.dtype, name=f'conv_{i}')(x)
      norm = nn.BatchNorm(
        use_running_average=False, momentum=0.9, dtype=self.dtype, name=f'norm_{i}'
      )
      x = nn.max_pool(nn.relu(norm(x)), (2, 2), (2, 2))
    x = nn.relu(
      nn.Dense(self.dense, dtype=self.dtype, name='hidden')(x.reshape(len(x), -1))
    )
    return nn.Dense(10, dtype=self.dtype, name='head')(x)


class Block(nn.Module):
  """Two convolutions and a shortcut; a projection where the shape changes."""

  channels: int
  stride: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    def norm(i, zero=False):
      return nn.BatchNorm(
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-5,
        scale_init=nn.initializers.zeros if zero else nn.initializers.ones,
        dtype=self.dtype,
        name=f'norm{i}',
      )

    def conv(i, kernel, stride):
      pad = (kernel - 1) // 2
      return nn.Conv(
        self.channels,
        (kernel, kernel),
        (stride, stride),
        padding=pad,
        use_bias=False,
        dtype=self.dtype,
        name=f'conv{i}',
      )

    y = nn.relu(norm(1)(conv(1, 3, self.stride)(x)))
    y = norm(2, True)(conv(2, 3, 1)(y))
    if x.shape != y.shape:
      x = nn.Conv(
        self.channels,
        (1, 1),
        (self.stride, self.stride),
        use_bias=False,
        dtype=self.dtype,
        name='skip',
      )(x)
      x = nn.BatchNorm(
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-5,
        dtype=self.dtype,
        name='skip_norm',
      )(x)
    return nn.relu(x + y)


class ResNet18(nn.Module):
  """Four stages of two blocks, a 3x3 stem."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = nn.Conv(
      self.width, (3, 3), padding=1, use_bias=False, dtype=self.dtype, name='stem'
    )(x)
    x = nn.relu(
      nn.BatchNorm(
        use_running_average=False,
        momentum=0.9,
        epsilon=1e-5,
        dtype=self.dtype,
        name='stem_norm',
      )(x)
    )
    for i in range(4):
      for j in range(2):
        stride = 2 if i > 0 and j == 0 else 1
        name = f'stage{i + 1}_block{j + 1}'
        x = Block(self.width * 2**i, stride, self.dtype, name=name)(x)
    return nn.Dense(10, dtype=self.dtype, name='head')(x.mean((1, 2)))


class LSTM(nn.Module):
  """Embedding, flax's RNN over its LSTM cell, the last output, Dense."""

  vocabulary_size: int
  embedding: int
  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, token_BT: Array) -> Array:
    x = nn.Embed(
      self.vocabulary_size, self.embedding, dtype=self.dtype, name='embedding'
    )(token_BT)
    rnn: Any = nn.RNN(
      nn.OptimizedLSTMCell(self.features, dtype=self.dtype, name='cell'), name='rnn'
    )
    x = rnn(x)
    return nn.Dense(2, dtype=self.dtype, name='head')(x[:, -1])


class TransformerBlock(nn.Module):
  """Pre-norm attention and feed-forward part, GELU by erf."""

  num_heads: int
  causal: bool
  use_bias: bool
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    norm = lambda name: nn.LayerNorm(
      epsilon=1e-5, use_bias=self.use_bias, dtype=self.dtype, name=name
    )
    mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
    attention = nn.MultiHeadDotProductAttention(
      self.num_heads, use_bias=self.use_bias, dtype=self.dtype, name='attention'
    )
    x = x + attention(norm('norm_attention')(x), mask=mask)
    dense = lambda n, name: nn.Dense(
      n, use_bias=self.use_bias, dtype=self.dtype, name=name
    )
    h = dense(4 * width, 'mlp_in')(norm('norm_mlp')(x))
    return x + dense(width, 'mlp_out')(nn.gelu(h, approximate=False))


class GPT(nn.Module):
  """Tied embeddings, positions, blocks, norm."""

  vocabulary_size: int
  context: int
  num_layers: int
  num_heads: int
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, token_BT: Array) -> Array:
    embed = nn.Embed(self.vocabulary_size, self.width, dtype=self.dtype, name='token')
    x = embed(token_BT)
    shape = (self.context, self.width)
    place = self.param('position_embedding', nn.initializers.normal(0.02), shape)
    x = x + place.astype(self.dtype)
    for i in range(self.num_layers):
      block = TransformerBlock(
        self.num_heads, True, False, self.dtype, name=f'block{i}'
      )
      x = block(x)
    return embed.attend(
      nn.LayerNorm(epsilon=1e-5, use_bias=False, dtype=self.dtype, name='norm')(x)
    )


class ViT(nn.Module):
  """Patches by a strided convolution, class token, positions, blocks, norm."""

  patch: int
  num_layers: int
  num_heads: int
  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    side = (self.patch, self.patch)
    x = nn.Conv(
      self.width, side, side, padding='VALID', dtype=self.dtype, name='patch'
    )(x)
    x = x.reshape(len(x), -1, self.width)
    token = self.param('class_token', nn.initializers.zeros, (self.width,))
    token = jnp.tile(token.astype(self.dtype), (len(x), 1, 1))
    x = jnp.concatenate([token, x], 1)
    init = nn.initializers.normal(0.02)
    x = x + self.param('position_embedding', init, x.shape[1:]).astype(self.dtype)
    for i in range(self.num_layers):
      block = TransformerBlock(
        self.num_heads, False, True, self.dtype, name=f'block{i}'
      )
      x = block(x)
    x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x)
    return nn.Dense(10, dtype=self.dtype, name='head')(x[:, 0])


class GCN(nn.Module):
  """Two layers; sums over edges and over sparse features by segment_sum."""

  features: int
  num_outputs: int

  @nn.compact
  def __call__(self, graph: Any, num_features: int) -> Array:
    nodes = len(graph['label'])
    loop = jnp.arange(nodes)
    a, b = graph['edges'].T
    sender, receiver = jnp.r_[a, b, loop], jnp.r_[b, a, loop]
    degree = jax.ops.segment_sum(jnp.ones(len(sender)), receiver, nodes)
    weight = (degree[sender] * degree[receiver]) ** -0.5
    row, column = graph['indices'].T
    total = jax.ops.segment_sum(graph['values'], row, nodes)
    value = graph['values'] / total[row]
    init = nn.initializers.glorot_uniform()
    zeros = nn.initializers.zeros

    def propagate(h):
      return jax.ops.segment_sum(h[sender] * weight[:, None], receiver, nodes)

    kernel = self.param('kernel_0', init, (num_features, self.features))
    h = jax.ops.segment_sum(kernel[column] * value[:, None], row, nodes)
    h = nn.relu(propagate(h) + self.param('bias_0', zeros, (self.features,)))
    h = h @ self.param('kernel_1', init, (self.features, self.num_outputs))
    return propagate(h) + self.param('bias_1', zeros, (self.num_outputs,))


class VAE(nn.Module):
  """One hidden layer on each side."""

  features: int
  latents: int

  @nn.compact
  def __call__(self, x: Array, noise: Array):
    h = nn.relu(nn.Dense(self.features, name='encoder_0')(x.reshape(len(x), -1)))
    h = nn.Dense(2 * self.latents, name='gaussian')(h)
    mean, log_var = jnp.split(h, 2, axis=-1)
    z = mean + noise * jnp.exp(log_var / 2)
    h = nn.relu(nn.Dense(self.features, name='decoder_0')(z))
    return nn.Dense(784, name='pixels')(h).reshape(x.shape), mean, log_var


class Generator(nn.Module):
  """Noise to 28 x 28, by transposed convolutions."""

  width: int

  @nn.compact
  def __call__(self, z: Array) -> Array:
    norm = lambda name: nn.BatchNorm(use_running_average=False, momentum=0.9, name=name)
    x = nn.Dense(7 * 7 * 2 * self.width, use_bias=False, name='dense')(z)
    x = nn.relu(norm('norm_0')(x.reshape(-1, 7, 7, 2 * self.width)))
    up = nn.ConvTranspose(self.width, (4, 4), (2, 2), use_bias=False, name='up_0')
    x = nn.relu(norm('norm_1')(up(x)))
    return jnp.tanh(nn.ConvTranspose(1, (4, 4), (2, 2), name='pixels')(x))


class Discriminator(nn.Module):
  """28 x 28 to a logit, by strided convolutions."""

  width: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    pad = ((1, 1), (1, 1))
    conv = lambda i, width, bias: nn.Conv(
      width, (4, 4), (2, 2), padding=pad, use_bias=bias, name=f'conv_{i}'
    )
    x = nn.leaky_relu(conv(0, self.width, True)(x), 0.2)
    x = conv(1, 2 * self.width, False)(x)
    x = nn.BatchNorm(use_running_average=False, momentum=0.9, name='norm_1')(x)
    x = nn.leaky_relu(x, 0.2)
    return nn.Dense(1, name='head')(x.reshape(len(x), -1))[:, 0]
