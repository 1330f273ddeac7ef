"""Who computes a case: a named implementation obeys or says why not, 'auto' chooses.

An operation (attention, convolution) has several implementations, each a `Backend` that
says which cases it refuses. `choose` takes the first of those asked for that does not
refuse; 'auto' asks first for what a measured row of kernels/*/tuned/<device>.json says,
then for the platform's libraries. `Choice.text` says what was chosen and why each other
was not.
"""

import contextlib
import contextvars
import functools
import importlib
import json
import pathlib
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import jax

PLATFORMS = ('cpu', 'cuda', 'tpu')


class Refusal(NamedTuple):
  """Why an implementation does not compute a case.

  Attributes:
    reason: what it lacks, with the value, e.g. 'head_dim=20 is not a multiple of 8'.
    nearest: what it would compute, e.g. 'head_dim=24'; empty: nothing near.
  """

  reason: str
  nearest: str = ''

  def __str__(self) -> str:
    return self.reason + (f' (nearest: {self.nearest})' if self.nearest else '')


class UnsupportedKernel(ValueError):
  """No implementation that was asked for computes the case.

  Attributes:
    refusals: of each that was asked for.
  """

  def __init__(self, operation: str, case: Any, refusals: Mapping[str, Refusal]):
    self.refusals = dict(refusals)
    reasons = '; '.join(f'{name}: {refusal}' for name, refusal in refusals.items())
    super().__init__(f'{operation} of {case} is not computed by {reasons}.')


class Backend(NamedTuple):
  """An implementation of an operation.

  Attributes:
    name: as `implementation` gives it.
    platforms: where it is compiled for; 'cpu' besides where it is simulated there.
    refusal: of a case; None: it computes it.
    functions: by name; which names there are, the operation's api says.
    simulated: on a CPU a simulator runs it: right, and slow.
  """

  name: str
  platforms: tuple[str, ...]
  refusal: Callable[[Any], Refusal | None]
  functions: Mapping[str, Callable[..., Any]]
  simulated: bool = False


def lazy(
  name: str,
  platforms: Sequence[str],
  module: str,
  functions: Sequence[str],
  simulated: bool = False,
) -> Backend:
  """A backend whose module is imported when it is first asked.

  Args:
    name: as `implementation` gives it.
    platforms: where it is compiled for.
    module: has `refusal` and the functions.
    functions: names of them.
    simulated: as of Backend.
  """

  def of(attribute: str):
    def call(*args, **options):
      return getattr(importlib.import_module(module), attribute)(*args, **options)

    return call

  calls = {function: of(function) for function in functions}
  return Backend(name, tuple(platforms), of('refusal'), calls, simulated)


class Row(NamedTuple):
  """A measured win, as kernels/tune.py writes it.

  Attributes:
    match: fields of a case and their values; a case that has them all is this one's. A
      list of two numbers is a range of a number, both ends included; a field that is a
      tuple is that tuple.
    implementation: that won.
    config: block sizes and the like, given to it.
    evidence: ms, best_other, ms_other, ratio, n, date, versions.
  """

  match: Mapping[str, Any]
  implementation: str
  config: Mapping[str, Any]
  evidence: Mapping[str, Any]


class Choice(NamedTuple):
  """What computes a case on a platform.

  Attributes:
    name: of the implementation.
    reason: why it was chosen.
    refusals: of those that come before it.
    config: measured block sizes; empty: its own.
  """

  name: str
  reason: str
  refusals: Mapping[str, Refusal]
  config: Mapping[str, Any] = {}

  @property
  def text(self) -> str:
    """A line on the choice, and one on each rejection."""
    lines = [f'{self.name}: {self.reason}']
    lines += [f'  not {name}: {refusal}' for name, refusal in self.refusals.items()]
    return '\n'.join(lines)


def choose(
  operation: str,
  case: Any,
  backends: Mapping[str, Backend],
  implementation: str | Sequence[str],
  platform: str,
  libraries: Mapping[str, Sequence[str]],
  rows: Sequence[Row] = (),
) -> Choice:
  """Who computes `case`.

  Args:
    operation: for messages.
    case: what is asked, a NamedTuple.
    backends: by name.
    implementation: 'auto', a name, or names in the order in which they are tried.
    platform: one of PLATFORMS.
    libraries: of each platform, what 'auto' takes where no row says better; the last
      one refuses nothing.
    rows: measured on the device.

  Raises:
    UnsupportedKernel: all that were asked for refuse.
    ValueError: a name that is not known.
  """
  auto = implementation == 'auto'
  names = [implementation] if isinstance(implementation, str) else list(implementation)
  row = None
  if auto:
    row = next((row for row in rows if matches(row, case)), None)
    names = [row.implementation] if row else []
    names += [name for name in libraries[platform] if name not in names]
  refusals: dict[str, Refusal] = {}
  for name in names:
    if auto and name not in backends:  # A row of another version.
      refusals[name] = Refusal('there is no such implementation')
      continue
    if name not in backends:
      raise ValueError(
        f'implementation={name!r} is not allowed: must be some of auto, '
        f'{", ".join(backends)}.'
      )
    backend = backends[name]
    refusal = backend.refusal(case)
    runs = platform in backend.platforms or (platform == 'cpu' and backend.simulated)
    if refusal is None and not runs:
      refusal = Refusal(f'it is not for {platform}', ' or '.join(backend.platforms))
    if refusal is None:
      if not auto:
        return Choice(name, 'asked for', refusals)
      if row is not None and name == row.implementation:
        return Choice(name, f'measured: {dict(row.evidence)}', refusals, row.config)
      return Choice(name, f'the library of {platform}; no measured row', refusals)
    refusals[name] = refusal
  raise UnsupportedKernel(operation, case, refusals)


class Operation(NamedTuple):
  """An operation, its implementations, and what was measured of them.

  Attributes:
    name: for messages.
    backends: by name.
    libraries: see `choose`.
    tuned: folder of the tables of measured rows.
  """

  name: str
  backends: dict[str, Backend]
  libraries: Mapping[str, Sequence[str]]
  tuned: pathlib.Path

  def choose(
    self, case: Any, implementation: str | Sequence[str], platform: str
  ) -> Choice:
    """Who computes a case on a platform; measured rows are of the `target` device."""
    rows = _trial.get()
    if not rows and platform == default_platform():
      rows = table(self.tuned, target().device_kind)
    return choose(
      self.name, case, self.backends, implementation, platform, self.libraries, rows
    )

  def run(
    self,
    function: str,
    case: Any,
    implementation: str | Sequence[str],
    interpret: Any,
    *operands: Any,
  ) -> Any:
    """`function` of whom each platform chooses, on that platform.

    Args:
      function: name of one of the functions of a backend.
      case: its first argument.
      implementation: as `choose` takes it.
      interpret: True: simulated, False: compiled, and not for a CPU; None: simulated
        on a CPU only. Or parameters of a simulator.
      operands: its other arguments.

    Raises:
      UnsupportedKernel: nobody on any platform, or on the one here, for which nothing
        but interpret=False makes up.
    """
    choices, here = {}, default_platform()
    for platform in PLATFORMS:
      try:
        choices[platform] = self.choose(case, implementation, platform)
      except UnsupportedKernel:
        if platform == here and interpret is not False:
          raise
    if not choices:
      self.choose(case, implementation, here)
    bodies = {}
    for platform, choice in choices.items():
      backend, options = self.backends[choice.name], {}
      if backend.simulated:
        simulate = platform == 'cpu' if interpret is None else interpret
        options = {'interpret': simulate, 'config': dict(choice.config)}
      body = functools.partial(backend.functions[function], case, **options)
      bodies[platform] = body
    names = {choice.name for choice in choices.values()}
    if len(names) == 1 and not self.backends[names.pop()].simulated:
      return next(iter(bodies.values()))(*operands)
    if interpret is False:
      bodies.pop('cpu', None)
    return jax.lax.platform_dependent(*operands, **bodies)


def target() -> Any:
  """The device that is traced for: has `platform` and `device_kind`, as JAX has them.

  It is that of the mesh in context (`jax.set_mesh`, dlx/layers/mesh.py), which need not
  be there; without one, the first that is.
  """
  return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]


def default_platform() -> str:
  """'cpu', 'cuda' or 'tpu': that of `target`."""
  platform = target().platform
  return 'cuda' if platform == 'gpu' else platform


_trial: contextvars.ContextVar[tuple[Row, ...]] = contextvars.ContextVar(
  'trial', default=()
)


@contextlib.contextmanager
def trial(row: Row) -> Iterator[None]:
  """What is traced inside finds this row and no table, on every platform."""
  token = _trial.set((row,))
  try:
    yield
  finally:
    _trial.reset(token)


def matches(row: Row, case: Any) -> bool:
  """Whether the case has every value, or lies in every range, of `row.match`."""
  for name, wanted in row.match.items():
    value = getattr(case, name)
    if isinstance(wanted, (list, tuple)):
      if isinstance(value, tuple):
        fits = value == _tuples(wanted)
      else:  # None is in no range.
        fits = isinstance(value, (int, float)) and wanted[0] <= value <= wanted[1]
    else:
      fits = value == wanted
    if not fits:
      return False
  return True


def _tuples(x: Any) -> Any:
  return tuple(map(_tuples, x)) if isinstance(x, (list, tuple)) else x


def known(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
  """The measured sizes of a kernel that knows `names`.

  Each kernel asks: a name that it does not know, of another version or mistyped, would
  otherwise be ignored or fail as whatever takes it does (`_replace` of a NamedTuple
  raises ValueError before Python 3.13 and TypeError since).

  Raises:
    ValueError: a name that the kernel does not know.
  """
  unknown = [name for name in config if name not in names]
  if unknown:
    raise ValueError(
      f'config={dict(config)} is not allowed: {", ".join(unknown)} is unknown; must be '
      f'some of {", ".join(names)}.'
    )
  return dict(config)


def file_name(device_kind: str) -> str:
  """'NVIDIA H200' -> 'nvidia_h200.json'."""
  return device_kind.lower().replace(' ', '_').replace('-', '_') + '.json'


@functools.cache
def table(folder: pathlib.Path, device_kind: str) -> tuple[Row, ...]:
  """Measured rows of a device; none where no file has its name."""
  file = folder / file_name(device_kind)
  if not file.exists():
    return ()
  found = json.loads(file.read_text(encoding='utf-8'))
  return tuple(
    Row(row['match'], row['implementation'], row['config'], row['evidence'])
    for row in found['rows']
  )
