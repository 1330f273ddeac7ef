"""The tables of the Inception papers (arXiv 1409.4842, 1502.03167): widths of blocks.

A block is a row; its branches, joined by channels, are

  one      1x1
  three    1x1 (three_reduce), 3x3
  wide     1x1 (wide_reduce), 5x5; or two 3x3, wide_1 and wide
  pool     3x3 pool, 1x1 (pool)
"""

from typing import NamedTuple, Sequence

from dlx.errors import ConfigError


class Block(NamedTuple):
  """One row of a table; widths are channels, 0: there is no such branch.

  Attributes:
    name: as in the paper, e.g. '3a'.
    one: of the 1x1 convolution.
    three_reduce: of the 1x1 before the 3x3.
    three: of the 3x3.
    wide_reduce: of the 1x1 before the 5x5 or the two 3x3.
    wide: of the 5x5, or of each of the two 3x3.
    project: of the 1x1 behind the pool; 0: what is pooled goes on as it is.
    pool: 'max' or 'avg', of 3x3.
    stride: of the last convolution of a branch, and of the pool.
  """

  name: str
  one: int
  three_reduce: int
  three: int
  wide_reduce: int
  wide: int
  project: int
  pool: str = 'max'
  stride: int = 1


Stages = Sequence[Sequence[Block]]
GOOGLENET: Stages = (
  (Block('3a', 64, 96, 128, 16, 32, 32), Block('3b', 128, 128, 192, 32, 96, 64)),
  (
    Block('4a', 192, 96, 208, 16, 48, 64),
    Block('4b', 160, 112, 224, 24, 64, 64),
    Block('4c', 128, 128, 256, 24, 64, 64),
    Block('4d', 112, 144, 288, 32, 64, 64),
    Block('4e', 256, 160, 320, 32, 128, 128),
  ),
  (Block('5a', 256, 160, 320, 32, 128, 128), Block('5b', 384, 192, 384, 48, 128, 128)),
)
# The paper prints a projection of 128 in 4c and 4d, too; its output sizes, 576 and
# 1024, follow from 96, which the authors' code has.
BN_INCEPTION: Stages = (
  (
    Block('3a', 64, 64, 64, 64, 96, 32, 'avg'),
    Block('3b', 64, 64, 96, 64, 96, 64, 'avg'),
    Block('3c', 0, 128, 160, 64, 96, 0, 'max', 2),
  ),
  (
    Block('4a', 224, 64, 96, 96, 128, 128, 'avg'),
    Block('4b', 192, 96, 128, 96, 128, 128, 'avg'),
    Block('4c', 160, 128, 160, 128, 160, 96, 'avg'),
    Block('4d', 96, 128, 192, 160, 192, 96, 'avg'),
    Block('4e', 0, 128, 192, 192, 256, 0, 'max', 2),
  ),
  (
    Block('5a', 352, 192, 320, 160, 224, 128, 'avg'),
    Block('5b', 352, 192, 320, 192, 224, 128, 'max'),
  ),
)
AUXILIARY = ('4a', '4d')  # Blocks that auxiliary heads read, in both papers.


def kept(stages: Stages, counts: Sequence[int]) -> Stages:
  """The first blocks of each stage and its last, so many in all.

  Raises:
    ConfigError: counts that the stages do not have.
  """
  most = tuple(map(len, stages))
  fits = len(counts) == len(most) and all(
    1 <= count <= top for count, top in zip(counts, most, strict=True)
  )
  if not fits:
    raise ConfigError(
      f'blocks={tuple(counts)} is not allowed: must be 1 to {most} of the stages.'
    )
  return tuple(
    (*stage[: count - 1], stage[-1])
    for stage, count in zip(stages, counts, strict=True)
  )
