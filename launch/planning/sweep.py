"""Which meshes and batch sizes a sweep compiles, and in which order they end up."""

from typing import Any, Mapping, Sequence

from dlx.errors import ConfigError


def meshes(
  text: str | None, num_devices: int, *, slices: int = 1, tensor: bool = False
) -> list[str]:
  """Meshes in text form.

  Args:
    text: as in --meshes: `data=8; fsdp=4,tensor=2`. None: all devices along data, along
      fsdp, and with 2, 4 and 8 of them along tensor.
    num_devices: of the target.
    slices: kept along data where there are several.
    tensor: whether the experiment has a table for that axis.
  """
  if text is not None:
    found = [part.strip() for part in text.split(';') if part.strip()]
    if not found:
      raise ConfigError(
        f'--meshes={text} is not allowed: must be meshes between semicolons, e.g. '
        "'data=8; fsdp=4,tensor=2'."
      )
    return found
  found = [f'data={num_devices}']
  inner = num_devices // slices
  outer = [('data', slices)] if slices > 1 else []
  for times in (1, 2, 4, 8) if tensor else (1,):
    if inner % times == 0:
      axes = [*outer, ('fsdp', inner // times), ('tensor', times)]
      kept = [f'{name}={size}' for name, size in axes if size > 1]
      if kept and ','.join(kept) not in found:
        found.append(','.join(kept))
  return found


def batch_sizes(texts: Sequence[str] | None, present: int) -> list[int]:
  """Global batch sizes; without --batch_sizes half, once and twice the config's.

  Raises:
    ConfigError: what is no positive number.
  """
  if not texts:
    return sorted({max(1, present // 2), present, 2 * present})
  if not all(text.isdecimal() and int(text) for text in texts):
    raise ConfigError(
      f'--batch_sizes={",".join(texts)} is not allowed: must be whole numbers from 1, '
      'with commas between them.'
    )
  return sorted({int(text) for text in texts})


def most_bytes(row: Mapping[str, Any]) -> int:
  """Bytes of one device: of a step, or of the evaluation that needs more."""
  parts = [row, *row['evaluations'].values()]
  return max(one['peak_bytes_per_device'] for one in parts)


def ranked(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
  """Rows with `examples_per_second`, the most that the bound allows, best first.

  What does not fit is last, the smallest excess first.
  """
  out = []
  for row in rows:
    seconds = row['bound_seconds'].get('all') if row['fits'] else None
    rate = row['batch_size'] / seconds if seconds else None
    out.append({**row, 'examples_per_second': rate})
  return sorted(
    out, key=lambda row: (-(row['examples_per_second'] or 0), most_bytes(row))
  )
