"""Rows of the suite `cpu`: which workload in which dtype, beside whom."""

from typing import NamedTuple, Sequence

from launch.benchmarks import workloads
from launch.benchmarks.peers import PEERS

# Also measured in bfloat16, beside PyTorch's autocast and Flax of that dtype.
BFLOAT16 = ('mlp', 'cnn', 'resnet18', 'lstm')
BFLOAT16 += ('char_gpt', 'char_gpt_large', 'vit', 'ddpm')


class Row(NamedTuple):
  """Attributes:
  workload: one of workloads.WORKLOADS.
  dtype: of the arithmetic; parameters are float32.
  """

  workload: str
  dtype: str

  @property
  def name(self) -> str:
    """As --workloads takes it: 'mlp', 'mlp:bfloat16'."""
    return self.workload + (':bfloat16' if self.dtype == 'bfloat16' else '')

  @property
  def fields(self) -> dict[str, str]:
    """Of the Config, besides the workload's."""
    return {'compute_dtype': 'bfloat16'} if self.dtype == 'bfloat16' else {}

  def has(self, peer: str) -> bool:
    """Whether the workload is written for a peer in this dtype."""
    only = workloads.ONLY.get(peer)
    if self.dtype == 'bfloat16' and (peer == 'keras' or PEERS[peer].mkl):
      return False  # PyTorch's products of bfloat16 are oneDNN's, not MKL's.
    return only is None or self.workload in only


def every() -> dict[str, Row]:
  """All rows by name: those of float32, then those of bfloat16."""
  found = [Row(name, 'float32') for name in workloads.WORKLOADS]
  found += [Row(name, 'bfloat16') for name in BFLOAT16]
  return {row.name: row for row in found}


def dtypes(rows: Sequence[Row]) -> list[str]:
  """Those that occur, float32 first."""
  return sorted({row.dtype for row in rows}, reverse=True)
