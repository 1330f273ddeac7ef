"""The largest batch that fits on the device that is here, by the plan of two batches.

The training step is compiled, not run, for the batch of the config and for twice of it.
Bytes grow along a line with the batch, so the two say where it meets the memory there
is.
"""

import os
from typing import Any, Callable

import jax

from dlx.errors import ConfigError
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import shortened
from dlx.run import sharding
from launch.planning import memory, program


def limit() -> int:
  """Bytes that a program may use on the first device; of a CPU those of the machine."""
  device = jax.devices()[0]
  stats = device.memory_stats() if device.platform != 'cpu' else None
  if stats and 'bytes_limit' in stats:
    return int(stats['bytes_limit'])
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def needed(built: Any, data_dir: Any = None) -> int:
  """Bytes of a training step on the first device, data of evaluations included."""
  device = jax.devices()[0]
  mesh = sharding.make_mesh(None, [device])
  traced = program.trace(built, mesh, device.platform, data_dir)
  compiled = traced.function.lower().compile()
  kinds = memory.by_kind(traced.given, compiled.memory_analysis())
  return sum(kinds.values()) + traced.beside


def largest(small: int, bytes_small: int, bytes_double: int, most: int) -> int | None:
  """The largest batch whose bytes, along the line through two batches, are at most
  `most`; None: bytes do not grow with the batch.

  Args:
    small: examples of the first batch; the second has twice as many.
    bytes_small: that the first needs.
    bytes_double: that the second needs.
    most: bytes there are.
  """
  of_one = (bytes_double - bytes_small) / small
  if of_one <= 0:
    return None
  return max(0, int((most - (bytes_small - of_one * small)) // of_one))


def report(build: Callable[[Any], Any], config: Any, data_dir: Any = None) -> Report:
  """The largest batch, and whether that of the config fits."""
  rows = getattr(config, 'batch_size', None)
  double = shortened(config, batch_size=2 * (rows or 0))
  if not rows or double.batch_size == rows:
    return skipped('the Config takes no other batch size')
  try:
    once, twice = (needed(build(c), data_dir) for c in (config, double))
  except ConfigError as error:
    return skipped(str(error))
  there = limit()
  most = largest(rows, once, twice, there)
  gib = lambda n: f'{n / 2**30:.3g} GiB'
  if most is None:
    return skipped('what a step needs does not grow with batch_size')
  said = (
    f'a step of {rows} examples needs {gib(once)} of {gib(there)}; about {most:,} '
    'examples fit'
  )
  if once <= there:
    return Report((), said)
  finding = Finding(
    'batch_does_not_fit',
    'error',
    f'A step of {rows} examples needs {gib(once)}, and there are {gib(there)}.',
    f'--config.batch_size={max(1, most)} or less, or --config.micro_batches=2; '
    'launch.plan tries changes.',
    'batch_size',
  )
  return Report([finding], said)
