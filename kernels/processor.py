"""The processor that this runs on: vendor, model, instruction sets. Imports nothing."""

import functools
import pathlib
import platform
from typing import NamedTuple

# That decide which loops a library of linear algebra takes, the narrowest first; the
# first three lines of an x86, the last of an ARM.
INSTRUCTION_SETS = (
  *('avx2', 'avx512f', 'avx512_bf16'),
  *('amx_bf16', 'amx_int8'),
  *('asimd', 'sve', 'bf16'),
)
VENDORS = {'GenuineIntel': 'intel', 'AuthenticAMD': 'amd', '0x41': 'arm'}
UNKNOWN = 'unknown'


class Processor(NamedTuple):
  """Attributes:
  vendor: 'intel', 'amd', 'arm', else as it calls itself; UNKNOWN where nothing says.
  model: its name, as the system gives it.
  instruction_sets: those of INSTRUCTION_SETS that it has, the narrowest first.
  """

  vendor: str
  model: str
  instruction_sets: tuple[str, ...]

  @property
  def kind(self) -> str:
    """Vendor and widest instruction set, e.g. 'amd_avx512_bf16', 'intel_amx'."""
    widest = self.instruction_sets[-1] if self.instruction_sets else UNKNOWN
    return f'{self.vendor}_{"amx" if widest.startswith("amx") else widest}'


def parse(cpuinfo: str) -> Processor:
  """Of the text of /proc/cpuinfo: the first processor that it lists."""
  found: dict[str, str] = {}
  for line in cpuinfo.splitlines():
    name, colon, value = line.partition(':')
    if colon:
      found.setdefault(name.strip(), value.strip())
  vendor = found.get('vendor_id') or found.get('CPU implementer') or UNKNOWN
  flags = (found.get('flags') or found.get('Features') or '').split()
  return Processor(
    VENDORS.get(vendor, vendor),
    found.get('model name') or platform.processor() or UNKNOWN,
    tuple(name for name in INSTRUCTION_SETS if name in flags),
  )


@functools.cache
def processor() -> Processor:
  """Of this machine; where there is no /proc/cpuinfo, its model alone is known."""
  try:
    text = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8', errors='replace')
  except OSError:
    text = ''
  return parse(text)
