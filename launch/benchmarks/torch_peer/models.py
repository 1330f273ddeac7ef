"""The models of the benchmark in PyTorch, as one writes them there to be fast.

Modules have the names that dlx gives their parameters, so that torch_side.py copies
weights by name. Images enter as [B, C, H, W], in memory channels last: flattening them
row by row, as dlx does, is then a view.
"""

# pyright: reportMissingImports=false
import itertools
from typing import Any, Sequence

import torch
from torch import Tensor, nn
import torch.nn.functional as F

SLOPE = 0.2  # Of the leaky ReLU below 0.


def rows(x_BCHW: Tensor) -> Tensor:
  """[B, H * W * C]; a view of what is channels last."""
  return x_BCHW.permute(0, 2, 3, 1).flatten(1)


class MLP(nn.Module):
  """Dense and ReLU in turn; `widths` has the input's first and the output's last."""

  def __init__(self, widths: Sequence[int]):
    super().__init__()
    *hidden, last = itertools.pairwise(widths)
    for i, (a, b) in enumerate(hidden):
      self.add_module(f'hidden_{i}', nn.Linear(a, b))
    self.head = nn.Linear(*last)

  def forward(self, x: Tensor) -> Tensor:
    *hidden, last = self.children()
    for layer in hidden:
      x = F.relu_(layer(x))
    return last(x)


class CNN(nn.Module):
  """Two blocks of convolution, batch norm, ReLU, pooling; then two Dense."""

  def __init__(
    self,
    shape: Sequence[int],
    features: Sequence[int],
    dense: int,
    outputs: int,
    dropout: float = 0.0,
  ):
    super().__init__()
    height, width, channels = shape
    first, second = features
    self.dropout = dropout
    self.conv_0 = nn.Conv2d(channels, first, 3, padding=1, bias=False)
    self.norm_0 = nn.BatchNorm2d(first)
    self.conv_1 = nn.Conv2d(first, second, 3, padding=1, bias=False)
    self.norm_1 = nn.BatchNorm2d(second)
    self.hidden = nn.Linear((height // 4) * (width // 4) * second, dense)
    self.head = nn.Linear(dense, outputs)

  def forward(self, x: Tensor) -> Tensor:
    # The ReLU of the largest is the largest ReLU, of a quarter of the numbers.
    x = F.relu_(F.max_pool2d(self.norm_0(self.conv_0(x)), 2))
    x = F.relu_(F.max_pool2d(self.norm_1(self.conv_1(x)), 2))
    x = F.relu_(self.hidden(rows(x)))
    return self.head(F.dropout(x, self.dropout, self.training))


class BasicBlock(nn.Module):
  """Two 3x3 convolutions, and a projection where the shape changes."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    self.norm1 = nn.BatchNorm2d(outputs)
    self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
    self.norm2 = nn.BatchNorm2d(outputs)
    self.projects = stride != 1 or inputs != outputs
    if self.projects:
      self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
      self.skip_norm = nn.BatchNorm2d(outputs)

  def forward(self, x: Tensor) -> Tensor:
    y = F.relu_(self.norm1(self.conv1(x)))
    y = self.norm2(self.conv2(y))
    if self.projects:
      x = self.skip_norm(self.skip(x))
    return F.relu_(y.add_(x))


class ResNet18(nn.Module):
  """3x3 stem, four stages of two blocks, mean over pixels, Dense."""

  def __init__(self, width: int, outputs: int, channels: int = 3):
    super().__init__()
    self.stem = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
    self.stem_norm = nn.BatchNorm2d(width)
    self.blocks = []
    before = width
    for stage, block in itertools.product(range(4), range(2)):
      after = width * 2**stage
      stride = 2 if stage and not block else 1
      self.blocks.append(f'stage{stage + 1}_block{block + 1}')
      self.add_module(self.blocks[-1], BasicBlock(before, after, stride))
      before = after
    self.head = nn.Linear(before, outputs)

  def forward(self, x: Tensor) -> Tensor:
    x = F.relu_(self.stem_norm(self.stem(x)))
    for name in self.blocks:
      x = getattr(self, name)(x)
    return self.head(x.mean((2, 3)))


class TextClassifier(nn.Module):
  """Embedding, LSTM, Dense of its last state. Rows are full: no padding is skipped."""

  def __init__(self, vocabulary: int, embedding: int, features: int, outputs: int):
    super().__init__()
    self.embedding = nn.Embedding(vocabulary, embedding)
    self.encoder = nn.ModuleDict({'forward_0': nn.LSTM(embedding, features)})
    self.head = nn.Linear(features, outputs)

  def forward(self, token_BT: Tensor) -> Tensor:
    _, (h_1BH, _) = self.encoder['forward_0'](self.embedding(token_BT.t()))
    return self.head(h_1BH[0])


class TextCNN(nn.Module):
  """Filters of several widths over word vectors, the largest output of each, Dense.

  A filter stands wherever it holds a word: zeros lie before and after the row, which is
  full.
  """

  def __init__(
    self,
    vocabulary: int,
    embedding: int,
    widths: Sequence[int],
    filters: int,
    num_outputs: int,
  ):
    super().__init__()
    self.embedding = nn.Embedding(vocabulary, embedding)
    self.names = [f'conv_{width}' for width in widths]
    for name, width in zip(self.names, widths, strict=True):
      self.add_module(name, nn.Conv1d(embedding, filters, width, padding=width - 1))
    self.head = nn.Linear(len(widths) * filters, num_outputs)

  def forward(self, tokens_BT: Tensor) -> Tensor:
    x_BDT = self.embedding(tokens_BT).transpose(1, 2)
    best = [self.get_submodule(name)(x_BDT).amax(2) for name in self.names]
    return self.head(torch.relu(torch.cat(best, 1)))


class Seq2Seq(nn.Module):
  """LSTM encoder and decoder; its outputs look at the encoder's, all at once.

  Rows are full: no padding is skipped.
  """

  def __init__(self, vocabulary: int, embedding: int, features: int):
    super().__init__()
    self.source_embedding = nn.Embedding(vocabulary, embedding)
    self.target_embedding = nn.Embedding(vocabulary, embedding)
    lstm = lambda: nn.LSTM(embedding, features, batch_first=True)
    self.encoder = nn.ModuleDict({'forward_0': lstm()})
    self.decoder_0 = lstm()
    for name, shape in (
      ('key_kernel', (features, features)),
      ('read_kernel', (2 * features, features)),
    ):
      weight = nn.init.normal_(torch.empty(shape), std=shape[0] ** -0.5)
      self.register_parameter(name, nn.Parameter(weight))
    self.read_bias = nn.Parameter(torch.zeros(features))
    self.head = nn.Linear(features, vocabulary)

  def forward(self, source_BS: Tensor, input_BT: Tensor) -> Tensor:
    memory, state = self.encoder['forward_0'](self.source_embedding(source_BS))
    out, _ = self.decoder_0(self.target_embedding(input_BT), state)
    scores_BTS = torch.bmm(out, (memory @ self.key_kernel).transpose(1, 2))
    context = torch.bmm(scores_BTS.softmax(-1), memory)
    both = torch.cat([context, out], -1) @ self.read_kernel
    return self.head(torch.tanh(both + self.read_bias))


class Attention(nn.Module):
  """Self-attention; queries, keys and values come from one product."""

  def __init__(self, width: int, heads: int, causal: bool, bias: bool):
    super().__init__()
    self.heads, self.causal = heads, causal
    self.qkv = nn.Linear(width, 3 * width, bias)
    self.out = nn.Linear(width, width, bias)

  def forward(self, x_BLD: Tensor) -> Tensor:
    b, n, d = x_BLD.shape
    qkv = self.qkv(x_BLD).view(b, n, 3, self.heads, d // self.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
    return self.out(y.transpose(1, 2).reshape(b, n, d))


class FeedForward(nn.Module):
  """Dense, GELU by erf, Dense."""

  def __init__(self, width: int, bias: bool):
    super().__init__()
    self.add_module('in', nn.Linear(width, 4 * width, bias))
    self.out = nn.Linear(4 * width, width, bias)

  def forward(self, x: Tensor) -> Tensor:
    return self.out(F.gelu(getattr(self, 'in')(x)))


class Block(nn.Module):
  """Pre-norm: attention, then feed-forward, each on a residual branch."""

  def __init__(self, width: int, heads: int, causal: bool, bias: bool):
    super().__init__()
    self.norm_attention = nn.LayerNorm(width, eps=1e-5, bias=bias)
    self.attention = Attention(width, heads, causal, bias)
    self.norm_mlp = nn.LayerNorm(width, eps=1e-5, bias=bias)
    self.mlp = FeedForward(width, bias)

  def forward(self, x: Tensor) -> Tensor:
    x = x + self.attention(self.norm_attention(x))
    return x + self.mlp(self.norm_mlp(x))


class Transformer(nn.Module):
  """Blocks in a row."""

  def __init__(self, layers: int, *args: Any):
    super().__init__()
    self.blocks = nn.ModuleList(Block(*args) for _ in range(layers))

  def forward(self, x: Tensor) -> Tensor:
    for block in self.blocks:
      x = block(x)
    return x


class GPT(nn.Module):
  """Token and position embeddings, causal blocks, a norm, logits by the embedding."""

  def __init__(
    self, vocabulary: int, context: int, layers: int, heads: int, width: int, bias: bool
  ):
    super().__init__()
    self.token = nn.Embedding(vocabulary, width)
    self.position_embedding = nn.Parameter(0.02 * torch.randn(context, width))
    self.transformer = Transformer(layers, width, heads, True, bias)
    self.norm = nn.LayerNorm(width, eps=1e-5, bias=bias)

  def forward(self, token_BT: Tensor) -> Tensor:
    x = self.token(token_BT) + self.position_embedding[: token_BT.shape[1]]
    return F.linear(self.norm(self.transformer(x)), self.token.weight)


class ViT(nn.Module):
  """Patches and a class token, blocks, a norm, logits of the class token."""

  def __init__(
    self, shape: Sequence[int], patch: int, layers: int, heads: int, width: int, outputs
  ):
    super().__init__()
    self.size = patch
    tokens = (shape[0] // patch) * (shape[1] // patch)
    self.patch = nn.Linear(patch * patch * shape[2], width)
    self.class_token = nn.Parameter(torch.zeros(width))
    self.position_embedding = nn.Parameter(0.02 * torch.randn(1 + tokens, width))
    self.transformer = Transformer(layers, width, heads, False, True)
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.head = nn.Linear(width, outputs)

  def forward(self, x_BCHW: Tensor) -> Tensor:
    b, c, h, w = x_BCHW.shape
    s = self.size
    x = x_BCHW.view(b, c, h // s, s, w // s, s).permute(0, 2, 4, 3, 5, 1)
    x = self.patch(x.reshape(b, -1, s * s * c))
    x = torch.cat([self.class_token.expand(b, 1, -1), x], 1) + self.position_embedding
    return self.head(self.norm(self.transformer(x)[:, 0]))


class SparseProduct(torch.autograd.Function):
  """matrix @ x for a constant sparse matrix, of which the transpose is kept too.

  Value and gradient for 49216 entries, 2708 x 1433 times 16 columns: 0.17 ms, against
  1.1 ms by autograd's own (which transposes at every step), 1.9 ms by embedding_bag,
  2.2 ms by the COO form and 1.4 to 11 ms by index_add. Medians of 30 on two busy
  cores, torch 2.13.0.
  """

  @staticmethod
  def forward(ctx: Any, x: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
    ctx.transposed = transposed
    return matrix @ x

  @staticmethod
  def backward(ctx: Any, *grads: Any) -> Any:
    return ctx.transposed @ grads[0], None, None


class GCN(nn.Module):
  """A relu(A X W0 + b0) W1 + b1. A and X are sparse; A is symmetric."""

  def __init__(self, inputs: int, features: int, outputs: int):
    super().__init__()
    self.kernel_0 = nn.Parameter(0.05 * torch.randn(inputs, features))
    self.bias_0 = nn.Parameter(torch.zeros(features))
    self.kernel_1 = nn.Parameter(0.05 * torch.randn(features, outputs))
    self.bias_1 = nn.Parameter(torch.zeros(outputs))

  def forward(self, x: Tensor, x_transposed: Tensor, links: Tensor) -> Tensor:
    times: Any = SparseProduct.apply
    h_NF = times(self.kernel_0, x, x_transposed)
    h_NF = F.relu_(times(h_NF, links, links) + self.bias_0)
    return times(h_NF @ self.kernel_1, links, links) + self.bias_1


class VAE(nn.Module):
  """Dense to mean and log-variance, Dense to logits; one hidden layer each."""

  def __init__(self, pixels: int, features: int, latents: int):
    super().__init__()
    self.encoder_0 = nn.Linear(pixels, features)
    self.gaussian = nn.Linear(features, 2 * latents)
    self.decoder_0 = nn.Linear(latents, features)
    self.pixels = nn.Linear(features, pixels)

  def forward(self, x_BP: Tensor, noise_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    h_BF = F.relu_(self.encoder_0(x_BP))
    mean_BL, log_var_BL = self.gaussian(h_BF).chunk(2, 1)
    z_BL = torch.addcmul(mean_BL, noise_BL, torch.exp(log_var_BL / 2))
    return self.pixels(F.relu_(self.decoder_0(z_BL))), mean_BL, log_var_BL


class Generator(nn.Module):
  """Noise -> 7x7 -> 14x14 -> 28x28, tanh."""

  def __init__(self, noise: int, width: int, channels: int):
    super().__init__()
    self.width = 2 * width
    self.dense = nn.Linear(noise, 7 * 7 * 2 * width, bias=False)
    self.norm_0 = nn.BatchNorm2d(2 * width)
    self.up_0 = nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False)
    self.norm_1 = nn.BatchNorm2d(width)
    self.pixels = nn.ConvTranspose2d(width, channels, 4, 2, 1)

  def forward(self, z_BZ: Tensor) -> Tensor:
    x = self.dense(z_BZ).view(-1, 7, 7, self.width).permute(0, 3, 1, 2)
    x = self.up_0(F.relu_(self.norm_0(x)))
    return torch.tanh(self.pixels(F.relu_(self.norm_1(x))))


class Discriminator(nn.Module):
  """28x28 -> 14x14 -> 7x7 -> one logit.

  Real images and samples have running statistics of their own, and share scale and
  shift.
  """

  def __init__(self, width: int, channels: int):
    super().__init__()
    self.conv_0 = nn.Conv2d(channels, width, 4, 2, 1)
    self.conv_1 = nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False)
    self.norm_1 = nn.BatchNorm2d(2 * width, track_running_stats=False)
    for kind in ('real', 'fake'):
      statistics = nn.BatchNorm2d(2 * width, affine=False)
      self.add_module(kind, nn.ModuleDict({'norm_1': statistics}))
    self.head = nn.Linear(7 * 7 * 2 * width, 1)

  def forward(self, x: Tensor, kind: str | None) -> Tensor:
    """Logits [B].

    Args:
      kind: 'real' or 'fake', whose statistics take in the batch; None: neither's.
    """
    x = self.conv_1(F.leaky_relu_(self.conv_0(x), SLOPE))
    own, mean, var = self.norm_1, None, None
    if kind is not None:
      kept = getattr(self, kind)['norm_1']
      mean, var = kept.running_mean, kept.running_var
    x = F.batch_norm(x, mean, var, own.weight, own.bias, True, 0.1, own.eps)
    return self.head(rows(F.leaky_relu_(x, SLOPE)))[:, 0]
