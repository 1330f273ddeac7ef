"""A plan as JSON and as text for a person."""

from typing import Any, Mapping, Sequence

from launch.planning import bound, hardware
from launch.planning.program import Evaluation, Plan
from launch.planning.sweep import most_bytes

BOUND = (
  'a bound, not a promise: peak rates all the time, and all parts at once; no step was '
  'run'
)


def as_json(plan: Plan, target: hardware.Target) -> dict[str, Any]:
  """What --out holds of one plan."""
  work = plan.work
  return {
    'topology': target.name,
    'slices': target.slices,
    'mesh': dict(plan.axes),
    'devices': plan.num_devices,
    'device_kind': plan.device_kind,
    'fits': plan.fits,
    'peak_bytes_per_device': plan.peak_bytes,
    'limit_bytes_per_device': plan.limit_bytes,
    'bytes_by_kind': dict(plan.bytes_by_kind),
    'xla_memory': None if plan.xla_memory is None else dict(plan.xla_memory),
    'refusal': plan.refusal,
    'evaluations': {
      name: {
        'peak_bytes_per_device': one.peak_bytes,
        'temporaries': one.temporaries,
        'refusal': one.refusal,
      }
      for name, one in plan.evaluations.items()
    },
    'flops_per_step': plan.flops.total,
    'flops_recomputed': plan.flops.recomputed,
    'flops_analytic': plan.flops_analytic,
    'loops_of_unknown_length': plan.flops.open_loops,
    'bytes_moved_per_device': None if work is None else work.moved,
    'arithmetic_intensity': None if work is None else bound.intensity(work),
    'collectives': plan.collectives,
    'bound_seconds': dict(plan.bound),
    'bound_is': BOUND,
    'peaks': {k: v for k, v in target.chip._asdict().items() if k != 'memory'},
    'seconds': {k: round(v, 2) for k, v in plan.seconds.items()},
  }


def as_text(plan: Plan, target: hardware.Target) -> str:
  """The table of one plan."""
  mesh = ','.join(f'{k}={v}' for k, v in plan.axes.items())
  fits = 'fits' if plan.fits else 'DOES NOT FIT'
  lines = [
    f'{target.name}: {plan.num_devices} x {plan.device_kind}, mesh {mesh}',
    f'{fits}: {needs(plan)} of {gib(plan.limit_bytes)} on each device',
    '',
    'memory of one device in a step',
  ]
  lines += [
    f'  {name.replace("_", " "):<18}{gib(size):>12}'
    for name, size in plan.bytes_by_kind.items()
    if size
  ]
  if plan.evaluations:
    lines += ['', 'memory of one device in an evaluation, state and data with it']
  for name, one in plan.evaluations.items():
    temporaries = f', {gib(one.temporaries)} of it temporaries'
    lines.append(f'  {name:<18}{_peak(one):>12}{temporaries}')
  lines += ['', 'a step on all devices']
  again = f', {si(plan.flops.recomputed)} of them computed again'
  lines.append(
    f'  {"operations":<18}{si(plan.flops.total):>12}'
    + (again if plan.flops.recomputed else '')
  )
  if plan.flops_analytic is not None:
    share = lambda number: f'{100 * number / plan.flops_analytic:.1f} %'
    once = share(plan.flops.total - plan.flops.recomputed)
    lines.append(
      f'  {"by formula":<18}{si(plan.flops_analytic):>12}; counted are '
      f'{share(plan.flops.total)} of it, {once} without those computed again'
    )
  if plan.flops.open_loops:
    lines.append(f'  loops of unknown length, counted once: {plan.flops.open_loops}')
  if plan.work is not None:
    lines += ['', 'a step on one device', *_work(plan)]
  lines += ['', f'least seconds a step ({BOUND})']
  lines += [f'  {name:<18}{value:>12.3g}' for name, value in plan.bound.items()]
  if 'all' in plan.bound:
    lines[-1] += f'   by {bound.limiter(plan.bound)}'
  return '\n'.join(lines)


def needs(plan: Plan) -> str:
  """Memory of one device: of a step, and of the evaluations that need more."""
  more = [
    f'evaluation {name} {_peak(one)}'
    for name, one in plan.evaluations.items()
    if one.peak_bytes > plan.peak_bytes
  ]
  return ', '.join([_peak(plan), *more])


def _peak(of: Plan | Evaluation) -> str:
  return ('' if of.refusal is None else 'at least ') + gib(of.peak_bytes)


def _work(plan: Plan) -> list[str]:
  work = plan.work
  assert work is not None
  found = bound.intensity(work)
  per_byte = '' if found is None else f', {found:.3g} operations a byte'
  lines = [f'  {"bytes moved":<18}{gib(work.moved):>12}{per_byte}']
  for kind, sums in (plan.collectives or {}).items():
    line = f'  {kind:<18}{gib(sums["bytes"]):>12} in {sums["count"]}'
    line += f', {gib(sums["sent_within_slice"])} sent'
    if sums['sent_across']:
      line += f', {gib(sums["sent_across"])} between slices'
    lines.append(line)
  return lines


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Ranked rows of a sweep, see sweep.py."""
  head = f'{"mesh":<32}{"batch":>7}{"memory":>12}{"bound":>11}  {"by":<13}examples/s <='
  lines = [head]
  for row in rows:
    mesh = ','.join(f'{k}={v}' for k, v in row['mesh'].items())
    line = f'{mesh:<32}{row["batch_size"]:>7}{gib(most_bytes(row)):>12}'
    seconds = row['bound_seconds'].get('all')
    if not row['fits']:
      line += f'{"-":>11}  does not fit'
    else:
      by = bound.limiter(row['bound_seconds'])
      line += f'{1e3 * seconds:>8.3g} ms  {by:<13}{row["examples_per_second"]:.4g}'
    lines.append(line)
  return '\n'.join(lines)


def gib(size: float) -> str:
  """Bytes in the unit that suits them."""
  for unit in ('B', 'KiB', 'MiB'):
    if size < 1024:
      return f'{size:.4g} {unit}'
    size /= 1024
  return f'{size:.2f} GiB'


def si(number: float) -> str:
  """A count in thousands, millions, ..."""
  for unit in ('', ' k', ' M', ' G', ' T'):
    if number < 1000:
      return f'{number:.4g}{unit}'
    number /= 1000
  return f'{number:.4g} P'
