"""What one program wrote of several runs, taken apart: a folder of records for each."""

import math
from typing import Any, Mapping, NamedTuple, Sequence

from etils import epath

from dlx.run.records.json_files import read_json, to_text, write_bytes, write_json
from dlx.run.records.metrics_file import MetricsFile
from dlx.study.curves import Curve, of_lines
from dlx.train.members import DIVERGED


class Joint(NamedTuple):
  """The records of runs that were trained together.

  Attributes:
    folder: their workdir.
    config, result: config.json and result.json there.
    lines: of metrics.jsonl.
    diverged: of each member, whether a step of it was not finite.
  """

  folder: epath.Path
  config: Mapping[str, Any]
  result: Mapping[str, Any]
  lines: Sequence[Mapping[str, Any]]
  diverged: Sequence[bool]

  @property
  def seconds(self) -> float:
    """The share of one member."""
    return float(self.result['seconds'].get('total', 0.0)) / len(self.diverged)

  def metrics(self, i: int) -> dict[str, float]:
    """Last figures of one member by "split/name"."""
    return self._own(self.result['metrics'], i)

  def curves(self, i: int) -> dict[str, Curve]:
    """Of one member, by "split/name"."""
    return of_lines(self._lines(i))

  def _lines(self, i: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, of one member."""
    return [self._line(x, i) for x in self.lines]

  def _own(self, metrics: Mapping[str, Any], i: int) -> dict[str, float]:
    """The numbers of one member; what is one number for all is that of each."""
    found = {}
    for name, value in metrics.items():
      many = isinstance(value, list) and len(value) == len(self.diverged)
      value = value[i] if many else value
      if isinstance(value, (int, float)) and name.rpartition('/')[2] != DIVERGED:
        found[name] = float(value)
    return found

  def _line(self, line: Mapping[str, Any], i: int) -> dict[str, Any]:
    """A line of metrics.jsonl of one member."""
    own = {**line, 'metrics': self._own(line['metrics'], i)}
    if groups := line.get('groups'):
      own['groups'] = {name: self._own(group, i) for name, group in groups.items()}
    return own

  def write(self, there: epath.Path, i: int, config: Mapping[str, Any]):
    """The folder of a member, result.json last; nothing where that is there.

    Args:
      there: path of the folder.
      i: number of the member.
      config: all fields of its Config, as JSON.
    """
    if (there / 'result.json').exists():
      return
    there.mkdir(parents=True, exist_ok=True)
    of = {
      'workdir': f'../../{self.folder.parent.name}/{self.folder.name}',
      'member': i,
      'members': len(self.diverged),
    }
    write_json(
      there / 'config.json', {**self.config, 'config': dict(config), 'together': of}
    )
    text = ''.join(to_text(line) + '\n' for line in self._lines(i))
    write_bytes(there / 'metrics.jsonl', text.encode())
    result = {
      **self.result,
      'metrics': self.metrics(i),
      'diverged': self.diverged[i],
      'together': of,
    }
    result.pop('fingerprint', None)  # Of the state of all.
    write_json(there / 'result.json', result)


def costs(result: Mapping[str, Any], n: int) -> dict[str, float]:
  """What one of n members cost by result.json, as `Finished.costs`."""
  seconds = result.get('seconds', {}).get('train')
  found = {
    'train_seconds': seconds,
    'parameters': result.get('parameters'),
    'step_flops': result.get('flops_per_step'),
  }
  if seconds is not None and result.get('step'):
    found['step_seconds'] = seconds / result['step']
  return {name: float(x) / n for name, x in found.items() if x is not None}


def read(folder: epath.Path, n: int) -> Joint:
  """The records of n members, finished."""
  lines = MetricsFile(folder).read()
  lost = [False] * n
  for line in lines:
    for i, share in enumerate(line['metrics'].get(DIVERGED, ())):
      lost[i] |= share > 0 or math.isnan(share)
  config, result = read_json(folder / 'config.json'), read_json(folder / 'result.json')
  return Joint(folder, config, result, lines, lost)
