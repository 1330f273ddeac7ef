"""What to change of a run that does not fit: edits of its flags, from cheap to dear."""

import dataclasses
import itertools
from typing import Any, Iterator, Mapping, NamedTuple

# What part of the activations is kept, and how much longer a step takes, about: the
# first orders the trials, the second what is tried first. Neither is told to anybody.
_REMAT = {'off': (1.0, 0.0), 'dots': (0.4, 0.1), 'full': (0.2, 0.33)}
_SAFE = 0.97  # Of the memory: an estimate is no compilation.


class Edit(NamedTuple):
  """One change of a run.

  Attributes:
    fields: of the config, with their new values.
    mesh: text of another mesh; None: as it was.
    estimate: bytes of a step on one device, guessed; only to choose what is compiled.
    cost: 0 for what makes nothing slower; only an order.
  """

  fields: Mapping[str, Any]
  mesh: str | None
  estimate: float
  cost: float

  @property
  def flags(self) -> str:
    """As they are typed."""
    parts = [f'--config.{name}={value}' for name, value in self.fields.items()]
    return ' '.join(parts + ([f'--mesh={self.mesh}'] if self.mesh else []))


def edits(
  config: Any,
  axes: Mapping[str, int],
  kinds: Mapping[str, int],
  limit: int,
  *,
  evaluations: Mapping[str, Any] | None = None,
  slices: int = 1,
  tensor: bool = False,
) -> list[Edit]:
  """Changes that may make a run fit, the cheapest first.

  Args:
    config: of the run.
    axes: of its mesh.
    kinds: bytes by kind of a step of the run that does not fit.
    limit: bytes of a device.
    evaluations: program.Evaluation by name.
    slices: among which `data` is divided.
    tensor: whether the experiment has a table for the axis.
  """
  temporaries = kinds['temporaries']
  # Gradients, their clipped form and the updates are as large as the parameters.
  gradients = min(temporaries, 4 * kinds['parameters'])
  spread = sum(kinds[k] for k in ('parameters', 'optimiser', 'ema', 'model_state'))
  rest = sum(kinds.values()) - temporaries - spread
  found = []
  options = itertools.product(
    _remats(config),
    _micro_batches(config),
    _meshes(axes, slices, tensor),
    _batches(config),
  )
  for remat, micro, (mesh_cost, mesh), (batch_cost, batch) in options:
    after = mesh or axes
    rows = after.get('data', 1) * after.get('fsdp', 1)
    size = batch or config.batch_size
    parts = micro or config.micro_batches
    if size % parts or (size // parts) % rows:
      continue
    before = axes.get('data', 1) * axes.get('fsdp', 1)
    kept = (size / parts / rows) / (config.batch_size / config.micro_batches / before)
    kept *= axes.get('tensor', 1) / after.get('tensor', 1)
    now = _REMAT.get(str(getattr(config, 'remat', 'off')), (1.0, 0.0))
    then = _REMAT[remat] if remat else now
    kept *= then[0] / now[0]
    held = _held(axes) / _held(after)
    estimate = rest + held * (spread + gradients) + kept * (temporaries - gradients)
    spared = spread - spread * held
    fewer = _eval_batch(config, evaluations or {}, _SAFE * limit, spared, axes, after)
    fields = {'remat': remat, 'micro_batches': micro, 'batch_size': batch}
    fields['eval_batch_size'] = None if fewer == config.eval_batch_size else fewer
    chosen = {k: v for k, v in fields.items() if v is not None}
    cost = then[1] - now[1] + 0.02 * (parts / config.micro_batches - 1)
    cost += mesh_cost + batch_cost
    text = ','.join(f'{k}={v}' for k, v in mesh.items()) if mesh else None
    if estimate <= _SAFE * limit and fewer and (chosen or mesh):
      found.append(Edit(chosen, text, estimate, cost))
  return sorted(found, key=lambda edit: (edit.cost, edit.estimate))


def _eval_batch(
  config: Any,
  evaluations: Mapping[str, Any],
  limit: float,
  spared: float,
  axes: Mapping[str, int],
  after: Mapping[str, int],
) -> int:
  """The largest batch of evaluations that may fit, at most that of the config; or 0.

  Args:
    evaluations: program.Evaluation by name.
    limit: bytes of a device.
    spared: of them, by dividing the state otherwise.
    axes: of the mesh.
    after: of the other mesh.
  """
  devices = lambda a: a.get('data', 1) * a.get('fsdp', 1) * a.get('tensor', 1)
  rows = after.get('data', 1) * after.get('fsdp', 1)
  size = config.eval_batch_size
  while size and size % rows == 0:
    kept = size / config.eval_batch_size * devices(axes) / devices(after)
    needed = [
      one.peak_bytes - spared - (1 - kept) * one.temporaries
      for one in evaluations.values()
    ]
    if max(needed, default=0) <= limit:
      return size
    size = size // 2 if size % 2 == 0 else 0
  return 0 if evaluations else config.eval_batch_size


def smaller_evaluation(edit: Edit, config: Any) -> Edit | None:
  """The edit with half the batch of evaluations; None where there is no half."""
  size = edit.fields.get('eval_batch_size', config.eval_batch_size)
  if size % 2:
    return None
  return edit._replace(fields={**edit.fields, 'eval_batch_size': size // 2})


def _held(axes: Mapping[str, int]) -> int:
  """Devices over which the state is divided, about."""
  return axes.get('fsdp', 1) * axes.get('tensor', 1)


def _remats(config: Any) -> Iterator[str | None]:
  """Policies that keep less than the present one."""
  yield None
  present = getattr(config, 'remat', None)
  if present in _REMAT:
    names = list(_REMAT)
    yield from names[names.index(present) + 1 :]


def _micro_batches(config: Any) -> Iterator[int | None]:
  yield None
  parts = 2 * config.micro_batches
  while parts <= config.batch_size:
    yield parts
    parts *= 2


def _meshes(
  axes: Mapping[str, int], slices: int, tensor: bool
) -> Iterator[tuple[float, dict[str, int] | None]]:
  """(cost, axes) of meshes that divide the state among more devices."""
  yield 0.0, None
  others = {k: v for k, v in axes.items() if k not in ('data', 'fsdp', 'tensor')}
  rows = axes.get('data', 1) * axes.get('fsdp', 1)
  present = axes.get('tensor', 1)
  for times in (1, 2, 4, 8) if tensor else (1,):
    outer = slices if rows % (slices * times) == 0 else 1
    if rows % (outer * times):
      continue
    found = {'data': outer, 'fsdp': rows // outer // times, **others}
    found['tensor'] = present * times
    found = {k: v for k, v in found.items() if v > 1} or {'data': 1}
    if found != {k: v for k, v in axes.items() if v > 1}:
      yield 0.05 * times, found


def _batches(config: Any) -> Iterator[tuple[float, int | None]]:
  """(cost, size) of smaller batches: another run, so the last resort."""
  yield 0.0, None
  size, cost = config.batch_size, 10.0
  while size > 1:
    size, cost = size // 2, cost + 1
    yield cost, size


def applied(config: Any, edit: Edit) -> Any:
  """The config with the edit; raises ConfigError where it may not have it."""
  return dataclasses.replace(config, **edit.fields)
