"""The U-Net of the benchmark in PyTorch; names as in torch_models.py."""

# pyright: reportMissingImports=false
import torch
from torch import Tensor, nn
import torch.nn.functional as F


def norm(channels: int) -> nn.GroupNorm:
  """At most 8 groups of 4 channels or more, all alike."""
  most = max(1, min(8, channels // 4))
  groups = next(n for n in range(most, 0, -1) if channels % n == 0)
  return nn.GroupNorm(groups, channels, eps=1e-6)


class TimeEmbedding(nn.Module):
  """Sines and cosines of the time at 32 rates, Dense, SiLU, Dense."""

  table: Tensor  # [1000, 64], of every time.

  def __init__(self, features: int):
    super().__init__()
    self.hidden = nn.Linear(64, features)
    self.out = nn.Linear(features, features)
    # The rounding of dlx: rates and angles are float32.
    rates = (1e4 ** -(torch.arange(32.0) / 31).double()).float()
    angles = (torch.arange(1000.0)[:, None] * rates).double()
    table = torch.cat([angles.sin(), angles.cos()], 1).float()
    self.register_buffer('table', table, persistent=False)

  def forward(self, t_B: Tensor) -> Tensor:
    sines_BF = self.table[t_B].to(self.out.weight.dtype)
    return self.out(F.silu(self.hidden(sines_BF)))


class ToPixels(nn.Conv2d):
  """A 1x1 convolution to four times the channels, which become squares of 2x2."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__(inputs, 4 * outputs, 1)

  def forward(self, input: Tensor) -> Tensor:
    return F.pixel_shuffle(super().forward(input), 2)


class ResidualBlock(nn.Module):
  """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), the second norm scaled and shifted."""

  def __init__(self, inputs: int, outputs: int, embedding: int):
    super().__init__()
    self.norm_0 = norm(inputs)
    self.conv_0 = nn.Conv2d(inputs, outputs, 3, padding=1)
    self.norm_1 = norm(outputs)
    self.scale_shift = nn.Linear(embedding, 2 * outputs)
    self.conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1)
    self.projects = inputs != outputs
    if self.projects:
      self.skip = nn.Conv2d(inputs, outputs, 1)

  def forward(self, x: Tensor, embedding_BF: Tensor) -> Tensor:
    h = self.norm_1(self.conv_0(F.silu(self.norm_0(x))))
    scale, shift = self.scale_shift(embedding_BF)[:, :, None, None].chunk(2, 1)
    h = self.conv_1(F.silu(torch.addcmul(shift, h, 1 + scale)))
    return (self.skip(x) if self.projects else x) + h


class UNet(nn.Module):
  """One residual block a level on the way down, two in the middle, two on the way up.

  A step down is a 2x2 convolution of stride 2, which is dlx's Dense of 2x2 squares.
  """

  def __init__(self, image_channels: int, channels: tuple[int, ...]):
    super().__init__()
    features = 4 * channels[0]
    self.time = TimeEmbedding(features)
    self.conv_in = nn.Conv2d(image_channels, channels[0], 3, padding=1)
    self.down, self.middle, self.up = [], [], []

    def add(name: str, module: nn.Module) -> str:
      self.add_module(name, module)
      return name

    def block(inputs: int, outputs: int, where: str) -> str:
      return add(f'{where}_block', ResidualBlock(inputs, outputs, features))

    skips = [channels[0]]
    for level, width in enumerate(channels):
      step = None
      if level:
        down = nn.Conv2d(channels[level - 1], width, 2, 2)
        step = add(f'downsample_{level}', down)
        skips.append(width)
      self.down.append((step, block(width, width, f'down_{level}_0')))
      skips.append(width)
    last = channels[-1]
    self.middle = [block(last, last, f'middle_{i}') for i in range(2)]
    now = last
    for level, width in reversed(list(enumerate(channels))):
      blocks = []
      for i in range(2):
        blocks.append(block(now + skips.pop(), width, f'up_{level}_{i}'))
        now = width
      step = None
      if level:
        now = channels[level - 1]
        step = add(f'upsample_{level}', ToPixels(width, now))
      self.up.append((blocks, step))
    self.norm_out = norm(channels[0])
    self.conv_out = nn.Conv2d(channels[0], image_channels, 3, padding=1)

  def forward(self, x: Tensor, t_B: Tensor) -> Tensor:
    embedding_BF = F.silu(self.time(t_B))
    run = lambda name, x: getattr(self, name)(x, embedding_BF)
    x = self.conv_in(x)
    skips = [x]
    for step, block in self.down:
      if step is not None:
        x = getattr(self, step)(x)
        skips.append(x)
      x = run(block, x)
      skips.append(x)
    for block in self.middle:
      x = run(block, x)
    for blocks, step in self.up:
      for block in blocks:
        x = run(block, torch.cat([x, skips.pop()], 1))
      if step is not None:
        x = getattr(self, step)(x)
    return self.conv_out(F.silu(self.norm_out(x)))
