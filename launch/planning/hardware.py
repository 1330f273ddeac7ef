"""Machines that a program can be compiled for without being there, and their peaks."""

import importlib.util
import os
import re
from typing import Any, MutableMapping, NamedTuple

from dlx.errors import ConfigError

GIB = 2**30
_GOOGLE = 'https://docs.cloud.google.com/tpu/docs/'
# Bandwidths of v5p, v6e and tpu7x stand side by side in that of tpu7x.
_SEVENTH = f'{_GOOGLE}tpu7x'
_NVIDIA = 'https://www.nvidia.com/en-us/data-center/'


class Chip(NamedTuple):
  """What one JAX device has, at most.

  Attributes:
    name: as in --topology.
    flops: a second, of bfloat16 products.
    memory: bytes a program may use: what the TPU compiler says that it has, less than
      is sold. Of a GPU all there is; see `limit`.
    bandwidth: bytes a second of that memory.
    inside: bytes a second that it sends to others of its slice or host, all links
      together, one way.
    across: the same to other slices or hosts.
    source: of the figures.
  """

  name: str
  flops: float
  memory: int
  bandwidth: float
  inside: float
  across: float
  source: str


CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      'v4',
      275e12,
      int(30.75 * GIB),
      1200e9,
      300e9,
      6.25e9,
      f'{_GOOGLE}v4; links: arXiv:2304.01433; across: not found, taken as v5p',
    ),
    Chip('v5e', 197e12, int(15.75 * GIB), 819e9, 200e9, 3.125e9, f'{_GOOGLE}v5e'),
    Chip('v5p', 459e12, int(95.73 * GIB), 2765e9, 600e9, 6.25e9, _SEVENTH),
    Chip(
      'v6e',
      918e12,
      int(31.25 * GIB),
      1638e9,
      400e9,
      12.5e9,
      f'{_GOOGLE}v6e; across: {_SEVENTH}',
    ),
    # A device is half a chip.
    Chip(
      'tpu7x',
      2307e12 / 2,
      int(94.75 * GIB),
      7380e9 / 2,
      600e9 / 2,
      12.5e9 / 2,
      _SEVENTH,
    ),
    # NVLink as published; one adapter of 400 Gbit/s a GPU is what DGX systems have.
    Chip('h100', 989e12, 80 * 10**9, 3350e9, 450e9, 50e9, f'{_NVIDIA}h100/'),
    Chip('h200', 989e12, 141 * 10**9, 4800e9, 450e9, 50e9, f'{_NVIDIA}h200/'),
  )
}
EXAMPLES = (
  'v4:2x2x1, v5e:2x2, v5e:16x16, v5p:2x2x2, v6e:4x4, tpu7x:2x2x1, h100:8, h200:8'
)


class Target(NamedTuple):
  """Attributes:
  name: as given.
  chip: of every device.
  slices: TPU slices or GPU hosts.
  shape: of one slice: '16x16'; of a host: its number of GPUs.
  """

  name: str
  chip: Chip
  slices: int
  shape: str

  @property
  def is_tpu(self) -> bool:
    return not self.chip.name.startswith('h')

  @property
  def platform(self) -> str:
    """'tpu' or 'cuda'."""
    return 'tpu' if self.is_tpu else 'cuda'


def parse(text: str | None, num_slices: int = 1) -> Target:
  """`v5e:16x16`, `2xv5e:16x16` (two slices), `h200:8`, `4xh200:8` (four hosts).

  Args:
    text: as in --topology.
    num_slices: as in --num_slices; stands where the text has no number of its own.

  Raises:
    ConfigError: anything else.
  """
  found = re.fullmatch(r'(?:(\d+)x)?([a-z]\w*):(\d+(?:x\d+)*)', text or '')
  if not found or found.group(2) not in CHIPS:
    given = ' is missing' if text is None else f'={text} is not allowed'
    raise ConfigError(
      f'--topology{given}: must be CHIP:SHAPE with CHIP one of {", ".join(CHIPS)}, or '
      f'2xCHIP:SHAPE for two slices, e.g. {EXAMPLES}.'
    )
  slices = int(found.group(1) or num_slices)
  if slices < 1 or (found.group(1) and num_slices not in (1, slices)):
    raise ConfigError(
      f'--num_slices={num_slices} is not allowed with --topology={text}: must be at '
      'least 1, and the number before the x where there is one.'
    )
  target = Target(str(text), CHIPS[found.group(2)], slices, found.group(3))
  if not target.is_tpu and not target.shape.isdecimal():
    raise ConfigError(
      f'--topology={text} is not allowed: must be {target.chip.name}:GPUS of a host, '
      f'e.g. {target.chip.name}:8, or 2x{target.chip.name}:8 for two hosts.'
    )
  return target


def limit(target: Target, environ: MutableMapping[str, str] = os.environ) -> int:
  """Bytes of memory that a program may use on one device.

  JAX takes three quarters of a GPU, or what XLA_PYTHON_CLIENT_MEM_FRACTION says.
  """
  if target.is_tpu:
    return target.chip.memory
  share = float(environ.get('XLA_PYTHON_CLIENT_MEM_FRACTION', 0.75))
  return int(share * target.chip.memory)


def prepare(environ: MutableMapping[str, str] = os.environ):
  """Sets what must be set before jax starts.

  Devices that are here stay untouched. libtpu does not ask the cloud's metadata server
  which machine this is (it waits for an answer), holds no lock as if it had a TPU, so
  that several plans run at once, and logs errors alone.
  """
  environ['JAX_PLATFORMS'] = 'cpu'
  environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
  environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')
  environ.setdefault('TPU_STDERR_LOG_LEVEL', '3')
  environ.setdefault('TPU_MIN_LOG_LEVEL', '3')


def devices(target: Target) -> list[Any]:
  """The devices of a machine that is not here.

  Raises:
    ConfigError: its compiler is missing, or knows no such machine.
  """
  return _tpus(target) if target.is_tpu else _gpus(target)


def _tpus(target: Target) -> list[Any]:
  if importlib.util.find_spec('libtpu') is None:
    raise ConfigError(
      f"--topology={target.name} needs the TPU's compiler, which needs no TPU: "
      "pip install 'dlx[tpu]' (or libtpu, of the age of jax)."
    )
  from jax.experimental import topologies

  options: dict[str, Any] = {}
  if target.slices > 1:
    options['num_slices'] = target.slices
  if target.chip.name == 'v4':  # One device a chip, as it is run; else one a core.
    options['chip_config_name'] = 'megacore'
  name = f'{target.chip.name}:{target.shape}'
  try:
    found = topologies.get_topology_desc(platform='tpu', topology_name=name, **options)
  except Exception as error:  # jaxlib's own, of several kinds.
    raise ConfigError(
      f'--topology={target.name} is not known to this libtpu ({_first_line(error)}): '
      f'must be a slice that there is, e.g. {EXAMPLES}.'
    ) from error
  return list(found.devices)


def _gpus(target: Target) -> list[Any]:
  from kernels.static import h200

  try:
    h200.toolkit()
  except h200.NoCompiler as error:
    raise ConfigError(f'--topology={target.name}: {error}') from error
  from jax.experimental import topologies

  found = topologies.get_topology_desc(
    platform='cuda',
    target_config=gpu_target(target.chip),
    topology=f'1x{target.slices}x{target.shape}',
  )
  return list(found.devices)


def gpu_target(chip: Chip) -> str:
  """XLA's description of a GPU: an H100 differs in two numbers and its name."""
  from kernels.static import h200

  text = h200.TARGET.read_text()
  if chip.name == 'h100':
    text = text.replace('NVIDIA H200', 'NVIDIA H100 80GB HBM3')
    text = re.sub(
      r'memory_bandwidth: \d+', f'memory_bandwidth: {chip.bandwidth:.0f}', text
    )
    text = re.sub(
      r'device_memory_size: \d+', f'device_memory_size: {chip.memory}', text
    )
  return text


def compiler_options(target: Target) -> dict[str, Any]:
  """Of XLA, for this target. Without a GPU nothing can be tuned by trial."""
  if target.is_tpu:
    return {}
  from kernels.static import h200

  return {'xla_gpu_cuda_data_dir': str(h200.toolkit()), 'xla_gpu_autotune_level': 0}


def _first_line(error: Exception) -> str:
  return str(error).splitlines()[0][:200]
