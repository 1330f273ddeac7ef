"""The environment of a process with several simulated devices."""

import os


def environment(devices: int) -> dict[str, str]:
  """This one's, on the CPU with so many devices; compiled as tests are."""
  flags = f'--xla_force_host_platform_device_count={devices}'
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'{os.environ.get("XLA_FLAGS", "")} {flags}'.strip(),
  }
