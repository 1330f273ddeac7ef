"""WORKDIR/report.html: one self-contained page about a run, a study or a sweep.

  render('runs/cnn')

Made from config.json, metrics.jsonl, figures/ and, once the run has ended,
result.json; it needs no device and no plotting library.
"""

import math
import os
from typing import Any, Mapping, Sequence

from etils import epath

from dlx.errors import DataError
from dlx.report import chart, page, study, sweep
from dlx.report.markup import Run, get
from dlx.run.records.json_files import read_json, write_bytes
from dlx.run.records.metrics_file import MetricsFile


def _mean(value: Any) -> tuple[float, float, float]:
  """(mean, least, largest) of a number or of a vector over members."""
  values = value if isinstance(value, list) else [value]
  values = [float(v) for v in values]
  if not all(math.isfinite(v) for v in values) or not values:
    bad = next((v for v in values if not math.isfinite(v)), math.nan)
    return bad, bad, bad
  return sum(values) / len(values), min(values), max(values)


def _is_numeric(value: Any) -> bool:
  if isinstance(value, list):
    return all(isinstance(v, (int, float)) for v in value)
  return isinstance(value, (int, float))


def lines(log: Sequence[Mapping[str, Any]]) -> dict[str, list[chart.Series]]:
  """The curves in the lines of metrics.jsonl, by metric; 'train' comes first."""
  found: dict[str, dict[str, list[tuple[int, Any]]]] = {}
  for record in log:
    for name, value in record['metrics'].items():
      if _is_numeric(value):
        found.setdefault(name, {}).setdefault(record['split'], []).append(
          (record['step'], value)
        )
  out: dict[str, list[chart.Series]] = {}
  for name, splits in found.items():
    for split in sorted(splits, key=lambda s: s != 'train'):
      points = [(x, _mean(v)) for x, v in sorted(splits[split], key=lambda p: p[0])]
      many = any(isinstance(v, list) for _, v in splits[split])
      out.setdefault(name, []).append(
        chart.Series(
          split,
          [(x, m[0]) for x, m in points],
          [(x, m[1]) for x, m in points] if many else (),
          [(x, m[2]) for x, m in points] if many else (),
        )
      )
  return out


def _by_name(workdir: Any, ending: str) -> list[tuple[str, Any]]:
  """(name, path) of the figures of one kind."""
  found = (workdir / 'figures').glob(f'*{ending}')
  return sorted((path.name.removesuffix(ending), path) for path in found)


def read(workdir: Any) -> Run:
  """What a workdir holds.

  Raises:
    DataError: it is no workdir of a run, or one of its JSON files is damaged.
  """
  workdir = epath.Path(workdir)
  files = {}
  for name in ('config', 'result'):
    path = workdir / f'{name}.json'
    files[name] = read_json(path) if path.exists() else {}
    if not isinstance(files[name], dict):
      raise DataError(f'{path} holds no JSON object: take another workdir.')
  log = MetricsFile(workdir).read()
  if not files['config'] and not log:
    raise DataError(
      f'{workdir} holds neither config.json nor metrics.jsonl: give the '
      '--workdir of a run of launch.train.'
    )
  curves = lines(log)
  splits = sorted({r['split'] for r in log}, key=lambda s: (s != 'train', s))
  times = [
    spent for r in log if isinstance(spent := get(r, 'time', 'seconds'), Mapping)
  ]
  totals = [t['total'] for t in times if isinstance(t.get('total'), (int, float))]
  return Run(
    name=workdir.name or os.fspath(workdir),
    config=files['config'],
    result=files['result'],
    curves=curves,
    splits=splits,
    last={f'{s.name}/{name}': s.points[-1][1] for name, c in curves.items() for s in c},
    step=max((r['step'] for r in log), default=0),
    seconds=totals[-1] if totals else None,
    figures=[(name, path.read_bytes()) for name, path in _by_name(workdir, '.png')],
    texts=[(name, path.read_text()) for name, path in _by_name(workdir, '.txt')],
    spent=times[-1] if times else {},
  )


def render(workdir: Any) -> Any:
  """Writes report.html into the workdir of a run, a study or a sweep, also under way.

  Returns:
    The path of the page.

  Raises:
    DataError: it is no workdir, or one of its JSON files is damaged.
  """
  workdir = epath.Path(workdir)
  if (workdir / sweep.NAME).exists():
    text = sweep.whole(study.read(workdir, sweep.NAME))
  elif (workdir / study.NAME).exists():
    text = study.whole(study.read(workdir))
  else:
    text = page.page(read(workdir))
  path = workdir / 'report.html'
  write_bytes(path, text.encode(errors='backslashreplace'))
  return path
