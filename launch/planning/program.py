"""Compiles the dispatch of an experiment for devices that are not here; loads nothing.

What is compiled is what launch.train runs: the programs of dlx/run/dispatch.py,
for a step and for every evaluation, resident data arguments of known shape.
"""

import time
from typing import Any, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Dataset, Resident
from dlx.errors import ConfigError
from dlx.experiment import Eval, Experiment
from dlx.run import flops, sharding
from dlx.run.dispatch import Dispatch, make_dispatch, make_eval, placed
from launch.planning import bound, collectives, hardware, hlo, memory, traffic


class Evaluation(NamedTuple):
  """What a batch of one evaluation needs on one device, between two steps.

  Attributes:
    peak_bytes: with the state and all data that lie there; where XLA refuses the
      program, at least these.
    temporaries: of them.
    program: of them, its code, which stays.
    refusal: what XLA says where it refuses the program.
  """

  peak_bytes: int
  temporaries: int
  program: int
  refusal: str | None


class Plan(NamedTuple):
  """Attributes:
  axes: of the mesh, by name.
  num_devices: JAX devices, on all slices.
  device_kind: as JAX calls them.
  fits: whether one device has enough memory, for a step and for every evaluation.
  peak_bytes: of a step on one device; where XLA refuses the program, at least these.
  limit_bytes: that one device has.
  bytes_by_kind: their sum is `peak_bytes`, where XLA accepts the program.
  xla_memory: XLA's own analysis, None where it refuses.
  refusal: what XLA says then.
  evaluations: by name; none where they were not asked for.
  flops: of a step on all devices, counted on the jaxpr.
  flops_analytic: as the experiment states them, or None.
  work: of one device in a step; None where XLA refuses the program.
  collectives: by kind, on one device in a step.
  bound: see bound.py; without a compiled program `compute` alone.
  seconds: that tracing, lowering and compiling took here.
  """

  axes: Mapping[str, int]
  num_devices: int
  device_kind: str
  fits: bool
  peak_bytes: int
  limit_bytes: int
  bytes_by_kind: Mapping[str, int]
  xla_memory: Mapping[str, int] | None
  refusal: str | None
  evaluations: Mapping[str, Evaluation]
  flops: flops.Flops
  flops_analytic: float | None
  work: bound.Work | None
  collectives: Mapping[str, Any] | None
  bound: Mapping[str, float]
  seconds: Mapping[str, float]


class Traced(NamedTuple):
  """A dispatch that was traced and not compiled.

  Attributes:
    dispatch: what it is part of.
    function: jax.stages.Traced.
    given: bytes on one device of its arguments, by kind.
    beside: bytes of what else lies in memory during a step: data of evaluations.
    flops: of a step on all devices.
  """

  dispatch: Dispatch
  function: Any
  given: Mapping[str, int]
  beside: int
  flops: flops.Flops


def abstract_arrays(dataset: Resident, data_dir: Any = None) -> Any:
  """Shapes of resident arrays.

  Declared, but for a few sets whose size follows from their labels: those are read here
  on the host. Raises DataError where there is nothing to read.
  """
  try:
    return dataset.array_shapes()
  except ConfigError:
    read = dataset.load(data_dir).data
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), read
    )


def trace(
  experiment: Experiment, mesh: Any, platform: str, data_dir: Any = None
) -> Traced:
  """Traces the dispatch for a mesh.

  Args:
    experiment: as built.
    mesh: of any devices.
    platform: 'cpu', 'cuda' or 'tpu', of the mesh.
    data_dir: see `abstract_arrays`.

  Raises:
    ConfigError: a mesh that the batch or the experiment cannot have.
  """
  dispatch = make_dispatch(experiment, mesh)
  data = experiment.train_data
  largest = max(range(len(data.shapes)), key=lambda i: _elements(data.shapes[i]))
  everywhere = lambda x: _everywhere(dispatch, x)
  steps = everywhere(jax.ShapeDtypeStruct((), jnp.int32))
  given = memory.of_state(dispatch.state)
  if isinstance(data, Resident):
    arguments = jax.tree.map(everywhere, abstract_arrays(data, data_dir))
    given['data'] = memory.on_device(arguments)
  else:
    arguments = placed(data.shapes[largest], dispatch.batches[largest])
    given['batch'] = memory.on_device(arguments)
  given['counters'] += memory.on_device((dispatch.window, steps))
  function = dispatch.run[largest].trace(
    dispatch.state, dispatch.window, arguments, steps
  )
  counted = flops.count(function.jaxpr, platform)
  if isinstance(data, Resident) and counted.total:  # The loop over steps itself.
    counted = counted._replace(open_loops=counted.open_loops - 1)
  beside = sum(
    memory.on_device(jax.tree.map(everywhere, abstract_arrays(other, data_dir)))
    for other in _others(experiment)
  )
  return Traced(dispatch, function, given, beside, counted)


def make(
  experiment: Experiment,
  target: hardware.Target,
  devices: Sequence[Any],
  mesh_text: str | None,
  data_dir: Any = None,
  evaluate: bool = True,
) -> Plan:
  """Traces and compiles; see `Plan`.

  Args:
    experiment: as built.
    target: see hardware.py.
    devices: of the target.
    mesh_text: as in --mesh.
    data_dir: see `abstract_arrays`.
    evaluate: also compile the evaluations, for their memory.

  Raises:
    ConfigError: as `trace`, and a mesh that does not tile the devices.
  """
  mesh = sharding.make_mesh(mesh_text, list(devices))
  clock = [time.monotonic()]
  traced = trace(experiment, mesh, target.platform, data_dir)
  clock.append(time.monotonic())
  lowered = traced.function.lower()
  clock.append(time.monotonic())
  limit = hardware.limit(target)
  compiled = _compiled(lowered, target)
  clock.append(time.monotonic())
  evaluations: dict[str, Evaluation] = {}
  if evaluate:
    code = 0
    if not isinstance(compiled, memory.OutOfMemory):
      code = memory.xla(compiled.memory_analysis())['program']
    resident = code + traced.beside + sum(traced.given.values())
    for name, one in experiment.evals.items():
      evaluations[name] = _evaluation(one, traced, mesh, target, resident, data_dir)
  clock.append(time.monotonic())
  names = ('trace', 'lower', 'compile', 'evaluations')
  spans = (clock[i + 1] - clock[i] for i in range(len(names)))
  found: dict[str, Any] = dict(
    axes=dict(mesh.shape),
    num_devices=mesh.size,
    device_kind=devices[0].device_kind,
    limit_bytes=limit,
    evaluations=evaluations,
    flops=traced.flops,
    flops_analytic=experiment.flops_per_step,
    seconds=dict(zip(names, spans, strict=True)),
  )
  if isinstance(compiled, memory.OutOfMemory):
    return _refused(found, traced, compiled, target, mesh.size)
  kinds = memory.by_kind(traced.given, compiled.memory_analysis())
  kinds['evaluation_data'] = traced.beside
  kinds['evaluation_programs'] = sum(one.program for one in evaluations.values())
  peak = sum(kinds.values())
  program = hlo.parse(compiled.as_text() or '')
  moves = collectives.find(program, _slices(target, mesh))
  work = bound.Work(
    flops=traced.flops.total / mesh.size,
    moved=traffic.bytes_moved(program, on_chip=target.is_tpu),
    inside=sum(one.inside for one in moves),
    across=sum(one.across for one in moves),
  )
  return Plan(
    fits=max([peak, *(one.peak_bytes for one in evaluations.values())]) <= limit,
    peak_bytes=peak,
    bytes_by_kind=kinds,
    xla_memory=memory.xla(compiled.memory_analysis()),
    refusal=None,
    work=work,
    collectives=collectives.by_kind(moves),
    bound=bound.seconds(work, target.chip),
    **found,
  )


def _compiled(lowered: Any, target: hardware.Target) -> Any:
  """jax.stages.Compiled, or memory.OutOfMemory where XLA says that."""
  try:
    return lowered.compile(compiler_options=hardware.compiler_options(target))
  except jax.errors.JaxRuntimeError as error:
    refusal = memory.refused(error)
    if refusal is None:
      raise
    return refusal


def _evaluation(
  evaluation: Eval,
  traced: Traced,
  mesh: Any,
  target: hardware.Target,
  resident: int,
  data_dir: Any,
) -> Evaluation:
  """Compiles a batch of an evaluation, as dlx/run/evaluation.py runs it.

  Args:
    resident: bytes of what lies there anyway: state, data, the program of a step.
  """
  dispatch, data = traced.dispatch, evaluation.data
  zeros, accumulate, _ = make_eval(evaluation, mesh, dispatch.state)
  everywhere = lambda x: _everywhere(dispatch, x)
  sums = jax.tree.map(everywhere, jax.eval_shape(zeros))
  index = everywhere(jax.ShapeDtypeStruct((), jnp.int32))
  more = memory.on_device((sums, index))
  if isinstance(data, Resident):
    reads = jax.tree.map(everywhere, abstract_arrays(data, data_dir))
  else:
    reads = placed(data.shapes[0], sharding.batch_shardings(mesh, data))
    more += memory.on_device(reads)
  lowered = accumulate.lower(sums, dispatch.state, reads, index)
  compiled = _compiled(lowered, target)
  if isinstance(compiled, memory.OutOfMemory):
    used = resident + more
    temporaries = compiled.temporaries
    if temporaries is None:
      temporaries = max(0, compiled.used - used)
    peak = max(compiled.used, used + temporaries)
    return Evaluation(peak, temporaries, 0, compiled.message)
  stats = memory.xla(compiled.memory_analysis())
  temporaries = stats['temporaries'] + stats['results'] - stats['aliased']
  peak = resident + more + temporaries + stats['program']
  return Evaluation(peak, temporaries, stats['program'], None)


def _refused(found, traced, refusal, target, num_devices) -> Plan:
  """The plan of a program that XLA says is too large."""
  kinds = {**traced.given, 'evaluation_data': traced.beside}
  kinds['evaluation_programs'] = sum(e.program for e in found['evaluations'].values())
  arguments = sum(traced.given.values())
  temporaries = refusal.temporaries
  if temporaries is None:
    temporaries = max(0, refusal.used - arguments)
  kinds['temporaries'] = temporaries
  return Plan(
    fits=False,
    peak_bytes=max(refusal.used, sum(kinds.values())),
    bytes_by_kind=kinds,
    xla_memory=None,
    refusal=refusal.message,
    work=None,
    collectives=None,
    bound={'compute': traced.flops.total / num_devices / target.chip.flops},
    **found,
  )


def _slices(target: hardware.Target, mesh: Any) -> list[int]:
  """The number of the slice or host of every device that a program speaks of.

  A TPU's program is that of one slice; what it has for the others it sends by name.
  """
  if target.is_tpu:
    return [0] * (mesh.size // target.slices)
  return [device.process_index for device in mesh.devices.flat]


def _everywhere(dispatch: Dispatch, x: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=dispatch.arrays)


def _elements(shapes: Mapping[str, Any]) -> int:
  return sum(x.size for x in shapes.values())


def _others(experiment: Experiment) -> list[Resident]:
  """Resident data besides that of training, each once, as a run places it."""
  wanted: list[Dataset | None] = [e.data for e in experiment.evals.values()]
  wanted += [f.data for f in experiment.figures.values()]
  found = {id(d): d for d in wanted if isinstance(d, Resident)}
  found.pop(id(experiment.train_data), None)
  return list(found.values())
