"""How the TPU kernels of attention cut a tile into parts, by the chip.

Found by compiling for each chip (`python -m kernels.static.llo`): bfloat16, 128 wide,
causal, tiles of 512 x 512. No chip has run them: a table of registers, not of times.
"""

from typing import NamedTuple

from kernels import dispatch


class Cut(NamedTuple):
  """Of a tile.

  Attributes:
    part_q, part_kv: queries and keys that are computed at once.
    ahead: parts whose scores are asked for before they are used; forward only.
  """

  part_q: int
  part_kv: int
  ahead: int = 0


class Cuts(NamedTuple):
  """Of the three kernels: forward, dq, dk with dv."""

  forward: Cut
  dq: Cut
  dkv: Cut


# Forward of 256 keys at once needs more bundles and spills more before v6e.
CUTS = {
  'v4': Cuts(Cut(128, 128, 2), Cut(512, 512), Cut(256, 512)),
  'v5e': Cuts(Cut(256, 128, 3), Cut(512, 512), Cut(512, 256)),
  'v5p': Cuts(Cut(256, 128, 3), Cut(512, 512), Cut(512, 256)),
  'v6e': Cuts(Cut(512, 256, 1), Cut(512, 512), Cut(256, 512)),
  'tpu7x': Cuts(Cut(512, 256, 1), Cut(512, 512), Cut(256, 512)),
}
# What runtimes call them: two names for some.
_NAMES = {
  'TPU v4': 'v4', 'TPU v5 lite': 'v5e', 'TPU v5e': 'v5e', 'TPU v5': 'v5p',
  'TPU v5p': 'v5p', 'TPU v6 lite': 'v6e', 'TPU v6e': 'v6e', 'TPU7x': 'tpu7x',
}  # fmt: skip
_OTHERS = 'v5e'  # For chips without a row, and where a CPU simulates.


def cuts() -> Cuts:
  """For the device that is traced for."""
  return CUTS[_NAMES.get(dispatch.target().device_kind, _OTHERS)]
