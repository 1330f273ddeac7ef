"""The file that --out asks for."""

import pathlib
import platform
import shlex
from typing import Any, Mapping, Sequence

import jax

from dlx.errors import ConfigError
from dlx.inspect.findings import Finding, Report
from dlx.run.records.json_files import to_text, write_bytes
from launch.diagnosis import page


def check(out: str | None):
  """Raises ConfigError unless the file can be written, before anything is run."""
  if out is None:
    return
  path = pathlib.Path(out)
  if path.suffix not in ('.html', '.json'):
    raise ConfigError(f'--out={out} is not allowed: must end in .html or .json.')
  if not path.parent.is_dir():
    raise ConfigError(f'--out={out} is not allowed: {path.parent} is no folder.')


def about(experiment: str, config: Any, argv: Sequence[str]) -> dict[str, str]:
  """What the file says of the experiment and of this machine."""
  return {
    'experiment': experiment,
    'dataset': str(getattr(config, 'dataset', '')),
    'command': shlex.join(['python', '-m', 'launch.doctor', *argv[1:]]),
    'device': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    'versions': f'Python {platform.python_version()}, jax {jax.__version__}',
  }


def write(
  out: str,
  facts: Mapping[str, str],
  found: Sequence[Finding],
  reports: Mapping[str, Report],
  titles: Mapping[str, str],
):
  """Writes the page or the JSON."""
  if out.endswith('.json'):
    body = to_text(page.as_json(facts, found, reports), 1) + '\n'
  else:
    body = page.as_html(facts, found, reports, titles)
  write_bytes(pathlib.Path(out), body.encode())
