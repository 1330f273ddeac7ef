"""Deeper convolutional nets of the benchmark in PyTorch; names as in models.py."""

# pyright: reportMissingImports=false
from typing import Any, Sequence

import torch
from torch import Tensor, nn
import torch.nn.functional as F


class DenseLayer(nn.Module):
  """Batch norm, ReLU, 3x3; with a bottleneck 1x1 to four times the growth first."""

  def __init__(self, inputs: int, growth: int, bottleneck: bool):
    super().__init__()
    self.count = 1 + bottleneck
    if bottleneck:
      self.norm1 = nn.BatchNorm2d(inputs)
      self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
      inputs = 4 * growth
    last = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
    self.add_module(f'norm{self.count}', nn.BatchNorm2d(inputs))
    self.add_module(f'conv{self.count}', last)

  def forward(self, x: Tensor) -> Tensor:
    for n in range(1, self.count + 1):
      x = getattr(self, f'conv{n}')(F.relu_(getattr(self, f'norm{n}')(x)))
    return x


class DenseNet(nn.Module):
  """3x3 stem, three blocks, 1x1 and mean pooling between them, batch norm, Dense."""

  def __init__(
    self, channels: int, depth: int, growth: int, bottleneck: bool, outputs: int
  ):
    super().__init__()
    count = (depth - 4) // (6 if bottleneck else 3)
    width = 2 * growth if bottleneck else 16
    self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    self.blocks: list[list[str]] = []
    for block in range(1, 4):
      names = [f'block{block}_layer{j}' for j in range(1, count + 1)]
      for name in names:
        self.add_module(name, DenseLayer(width, growth, bottleneck))
        width += growth
      self.blocks.append(names)
      if block < 3:
        kept = width // 2 if bottleneck else width
        norm, conv = nn.BatchNorm2d(width), nn.Conv2d(width, kept, 1, bias=False)
        between = nn.ModuleDict({'norm': norm, 'conv': conv})
        self.add_module(f'transition{block}', between)
        width = kept
    self.norm = nn.BatchNorm2d(width)
    self.head = nn.Linear(width, outputs)

  def forward(self, x: Tensor) -> Tensor:
    x = self.stem(x)
    for i, names in enumerate(self.blocks, 1):
      features = [x]
      for name in names:
        features.append(getattr(self, name)(torch.cat(features, 1)))
      x = torch.cat(features, 1)
      if i < len(self.blocks):
        between = getattr(self, f'transition{i}')
        x = F.avg_pool2d(between['conv'](F.relu_(between['norm'](x))), 2)
    return self.head(F.relu_(self.norm(x)).mean((2, 3)))


class ConvNeXtBlock(nn.Module):
  """Depthwise convolution, then norm and two Dense over the channels, as rows of them.

  That is the authors' faster form: what is channels last needs no copy for it.
  """

  def __init__(self, width: int, kernel: int, scaled: bool):
    super().__init__()
    self.depthwise = nn.Conv2d(
      width, width, kernel, padding=(kernel - 1) // 2, groups=width
    )
    self.norm = nn.LayerNorm(width, eps=1e-6)
    self.expand = nn.Linear(width, 4 * width)
    self.project = nn.Linear(4 * width, width)
    self.layer_scale = nn.Parameter(torch.ones(width)) if scaled else None

  def forward(self, x: Tensor) -> Tensor:
    y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
    y = self.project(F.gelu(self.expand(y)))
    if self.layer_scale is not None:
      y = y * self.layer_scale
    return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
  """Stem of patches, stages with a 2x2 convolution before each, mean, norm, Dense."""

  def __init__(
    self,
    channels: int,
    blocks: Sequence[int],
    widths: Sequence[int],
    patch: int,
    scaled: bool,
    outputs: int,
  ):
    super().__init__()
    self.stem = nn.Conv2d(channels, widths[0], patch, patch)
    self.stem_norm = nn.LayerNorm(widths[0], eps=1e-6)
    self.stages: list[list[str]] = []
    for i, (count, width) in enumerate(zip(blocks, widths, strict=True), 1):
      if i > 1:
        self.add_module(f'down{i}_norm', nn.LayerNorm(widths[i - 2], eps=1e-6))
        self.add_module(f'down{i}', nn.Conv2d(widths[i - 2], width, 2, 2))
      names = [f'stage{i}_block{j}' for j in range(1, count + 1)]
      for name in names:
        self.add_module(name, ConvNeXtBlock(width, 7, scaled))
      self.stages.append(names)
    self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
    self.head = nn.Linear(widths[-1], outputs)

  def forward(self, x: Tensor) -> Tensor:
    x = _over_channels(self.stem_norm, self.stem(x))
    for i, names in enumerate(self.stages, 1):
      if i > 1:
        x = _over_channels(getattr(self, f'down{i}_norm'), x)
        x = getattr(self, f'down{i}')(x)
      for name in names:
        x = getattr(self, name)(x)
    return self.head(self.norm(x.mean((2, 3))))


def _over_channels(norm: nn.Module, x_BCHW: Tensor) -> Tensor:
  return norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class InvertedResidual(nn.Module):
  """1x1 to more channels, depthwise 3x3, 1x1; added to the input of the same shape."""

  def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
    super().__init__()
    width = inputs * expansion
    self.expands = expansion != 1
    if self.expands:
      self.expand = nn.Conv2d(inputs, width, 1, bias=False)
      self.expand_norm = nn.BatchNorm2d(width)
    self.depthwise = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
    self.depthwise_norm = nn.BatchNorm2d(width)
    self.project = nn.Conv2d(width, outputs, 1, bias=False)
    self.project_norm = nn.BatchNorm2d(outputs)
    # The norms that follow take these out: their gradient is rounding noise.
    self.project_norm.bias.requires_grad_(False)
    self.adds = stride == 1 and inputs == outputs

  def forward(self, x: Tensor) -> Tensor:
    y = F.relu6(self.expand_norm(self.expand(x)), True) if self.expands else x
    y = F.relu6(self.depthwise_norm(self.depthwise(y)), True)
    y = self.project_norm(self.project(y))
    return y.add_(x) if self.adds else y


class MobileNetV2(nn.Module):
  """3x3 stem, inverted residuals, 1x1, mean over pixels, Dense."""

  def __init__(
    self,
    channels: int,
    stages: Sequence[Any],
    stem: int,
    stem_stride: int,
    last: int,
    outputs: int,
  ):
    """Stages as in dlx.models.mobilenet."""
    super().__init__()
    self.stem = nn.Conv2d(channels, stem, 3, stem_stride, 1, bias=False)
    self.stem_norm = nn.BatchNorm2d(stem)
    self.blocks: list[str] = []
    before = stem
    for i, stage in enumerate(stages, 1):
      for j in range(1, stage.blocks + 1):
        stride = stage.stride if j == 1 else 1
        block = InvertedResidual(before, stage.channels, stage.expansion, stride)
        self.blocks.append(f'stage{i}_block{j}')
        self.add_module(self.blocks[-1], block)
        before = stage.channels
    self.last = nn.Conv2d(before, last, 1, bias=False)
    self.last_norm = nn.BatchNorm2d(last)
    self.head = nn.Linear(last, outputs)

  def forward(self, x: Tensor) -> Tensor:
    x = F.relu6(self.stem_norm(self.stem(x)), True)
    for name in self.blocks:
      x = getattr(self, name)(x)
    x = F.relu6(self.last_norm(self.last(x)), True)
    return self.head(x.mean((2, 3)))
