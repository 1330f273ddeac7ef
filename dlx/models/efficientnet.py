"""EfficientNet (arXiv:1905.11946): a net found by search, scaled in width and depth.

Inverted residual blocks with squeeze-and-excitation, swish and stochastic depth. Of
phi = 0, 1, 2 the widths, depths and sides of images are those of the authors' code,
rounded from 1.1^phi, 1.2^phi and 1.15^phi of the paper.

Layers and those of torchvision's `efficientnet_b0`, whose weights fit (a kernel as
OIHW, running statistics in `batch_stats`); the first publication, by TensorFlow, pads
convolutions of a stride on one side, and its weights do not fit to the last digit:

  stem, stem_norm            features.0.0, features.0.1
  stageI_blockJ              features.I.(J - 1).block
    expand, expand_norm      .0.0, .0.1; where expansion is 1 all below are one less
    depthwise, ..._norm      .1.0, .1.1
    squeeze/reduce, expand   .2.fc1, .2.fc2
    project, project_norm    .3.0, .3.1
  last, last_norm            features.8.0, features.8.1
  head                       classifier.1
"""

import math
from typing import Any, NamedTuple, Sequence

from dlx.errors import ConfigError
from dlx.models.inverted_residual import InvertedResidualNet, Stage, rounded

STAGES = (  # Table 1 of the paper, B0.
  Stage(expansion=1, channels=16, blocks=1, stride=1, kernel=3),
  Stage(expansion=6, channels=24, blocks=2, stride=2, kernel=3),
  Stage(expansion=6, channels=40, blocks=2, stride=2, kernel=5),
  Stage(expansion=6, channels=80, blocks=3, stride=2, kernel=3),
  Stage(expansion=6, channels=112, blocks=3, stride=1, kernel=5),
  Stage(expansion=6, channels=192, blocks=4, stride=2, kernel=5),
  Stage(expansion=6, channels=320, blocks=1, stride=1, kernel=3),
)
STRIDES = (2, *(stage.stride for stage in STAGES))  # Of the stem, then of the stages.


class Size(NamedTuple):
  """A member of the family.

  Attributes:
    width: channels over those of B0.
    depth: blocks of each stage over those of B0.
    image: side of the images that it is meant for, in pixels.
    dropout: before the last layer, in the authors' training.
  """

  width: float
  depth: float
  image: int
  dropout: float


SIZES = {
  'b0': Size(1.0, 1.0, 224, 0.2),
  'b1': Size(1.0, 1.1, 240, 0.2),
  'b2': Size(1.1, 1.2, 260, 0.3),
}


def efficientnet(
  size: str = 'b0',
  *,
  width: float = 1.0,
  depth: float = 1.0,
  strides: Sequence[int] = STRIDES,
  **fields: Any,
) -> InvertedResidualNet:
  """A member of the family; with 1000 classes, on images of its side:

    b0   5,288,548 parameters (paper: 5.3 M), 0.39 G multiply-adds (0.39 G)
    b1   7,794,184 (7.8 M), 0.69 G (0.70 G)
    b2   9,109,994 (9.2 M), 0.99 G (1.0 G)

  Args:
    size: one of SIZES.
    width: of the channels over those of this size, rounded to multiples of 8.
    depth: of the blocks of each stage over those of this size, rounded up.
    strides: of the stem, then of the seven stages; others than the paper's for small
      images.
    fields: of InvertedResidualNet; `dropout` is that of the size, `drop_path` 0.2,
      `momentum` 0.99 and `epsilon` 1e-3, the authors', unless given.

  Raises:
    ConfigError: another size, a width or depth of 0 or less, or other than eight
      strides.
  """
  if size not in SIZES:
    raise ConfigError(f'size={size} is not allowed: must be one of {", ".join(SIZES)}.')
  for name, value in (('width', width), ('depth', depth)):
    if value <= 0:
      raise ConfigError(f'{name}={value} is not allowed: must be above 0.')
  if len(strides) != len(STRIDES):
    raise ConfigError(
      f'strides={tuple(strides)} is not allowed: must be {len(STRIDES)}, of the stem '
      'and of each stage.'
    )
  of = SIZES[size]
  stages = tuple(
    stage._replace(
      channels=rounded(width * of.width * stage.channels),
      blocks=math.ceil(depth * of.depth * stage.blocks),
      stride=stride,
    )
    for stage, stride in zip(STAGES, strides[1:], strict=True)
  )
  chosen = {
    'activation': 'silu',
    'squeeze': 0.25,
    'dropout': of.dropout,
    'drop_path': 0.2,
    'momentum': 0.99,
    'epsilon': 1e-3,
    **fields,
  }
  return InvertedResidualNet(
    stages,
    stem=rounded(32 * width * of.width),
    stem_stride=strides[0],
    last=rounded(1280 * width * of.width),
    **chosen,
  )
