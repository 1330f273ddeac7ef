"""MobileNet v2 (arXiv:1801.04381): inverted residual blocks, ReLU6, no squeeze.

Layers and those of torchvision's `mobilenet_v2`, whose weights fit (a kernel as OIHW,
running statistics in `batch_stats`):

  stem, stem_norm            features.0.0, features.0.1
  stageI_blockJ, block N     features.N.conv, N from 1 to 17 over all stages
    expand, expand_norm      .0.0, .0.1; where expansion is 1 all below begin at 0
    depthwise, ..._norm      .1.0, .1.1
    project, project_norm    .2, .3
  last, last_norm            features.18.0, features.18.1
  head                       classifier.1
"""

import math
from typing import Any, Sequence

from dlx.errors import ConfigError
from dlx.models.inverted_residual import InvertedResidualNet, Stage, rounded

STAGES = (  # Table 2 of the paper.
  Stage(expansion=1, channels=16, blocks=1, stride=1),
  Stage(expansion=6, channels=24, blocks=2, stride=2),
  Stage(expansion=6, channels=32, blocks=3, stride=2),
  Stage(expansion=6, channels=64, blocks=4, stride=2),
  Stage(expansion=6, channels=96, blocks=3, stride=1),
  Stage(expansion=6, channels=160, blocks=3, stride=2),
  Stage(expansion=6, channels=320, blocks=1, stride=1),
)
STRIDES = (2, *(stage.stride for stage in STAGES))  # Of the stem, then of the stages.


def mobilenet_v2(
  width: float = 1.0,
  *,
  depth: float = 1.0,
  strides: Sequence[int] = STRIDES,
  **fields: Any,
) -> InvertedResidualNet:
  """The net of the paper; on 224 x 224 x 3, 1000 classes:

    width 1     3,504,872 parameters (paper: 3.4 M), 301 M multiply-adds (300 M)
    width 1.4   6,108,776 (6.9 M; the authors' code says 6.06), 582 M (585 M)

  Args:
    width: of the channels over the paper's, each rounded to a multiple of 8; the last
      convolution has 1280 or more.
    depth: of the blocks of each stage over the paper's, rounded up; not in the paper.
    strides: of the stem, then of the seven stages; others than the paper's for small
      images.
    fields: of InvertedResidualNet.

  Raises:
    ConfigError: a width or depth of 0 or less, or other than eight strides.
  """
  for name, value in (('width', width), ('depth', depth)):
    if value <= 0:
      raise ConfigError(f'{name}={value} is not allowed: must be above 0.')
  if len(strides) != len(STRIDES):
    raise ConfigError(
      f'strides={tuple(strides)} is not allowed: must be {len(STRIDES)}, of the stem '
      'and of each stage.'
    )
  stages = tuple(
    stage._replace(
      channels=rounded(width * stage.channels),
      blocks=math.ceil(depth * stage.blocks),
      stride=stride,
    )
    for stage, stride in zip(STAGES, strides[1:], strict=True)
  )
  return InvertedResidualNet(
    stages,
    stem=rounded(32 * width),
    stem_stride=strides[0],
    last=rounded(1280 * max(1.0, width)),
    **fields,
  )
