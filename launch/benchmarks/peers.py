"""Whom dlx is measured beside. Imports none of them."""

from typing import NamedTuple


class Peer(NamedTuple):
  """Attributes:
  package: that must be installed.
  side: of launch/benchmarks/worker.py.
  mkl: with MKL's loops for Intel's processors, see launch/benchmarks/blas.py.
  """

  package: str
  side: str
  mkl: bool = False


PEERS = {
  'torch': Peer('torch', 'torch'),
  'torch_compile': Peer('torch', 'torch_compile'),
  'torch_mkl': Peer('torch', 'torch', mkl=True),
  'torch_compile_mkl': Peer('torch', 'torch_compile', mkl=True),
  'flax': Peer('flax', 'flax'),
  'keras': Peer('keras', 'keras'),
}
