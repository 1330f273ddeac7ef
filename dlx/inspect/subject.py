"""An experiment made ready to be asked: data placed, programs compiled once."""

import dataclasses
import functools
import time
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Dataset, Resident
from dlx.errors import ConfigError
from dlx.experiment import Config, Eval, Experiment
from dlx.optim import global_norm
from dlx.run import feed, sharding
from dlx.run.dispatch import get_batch
from dlx.run.nonfinite import watched_equations as watched
from dlx.run.processes import to_host
from dlx.state import Array, Batch, Mean, Metrics, TrainState, add, ratios


class Stepped(NamedTuple):
  """What one train step gives.

  Attributes:
    state: the new one.
    sums: its metrics.
    norms: Euclidean norm of each tensor that the step watches (`steps.watch`), by its
      name: those of gradients are 'gradients/...'.
  """

  state: TrainState
  sums: Metrics
  norms: Mapping[str, Array]


class Run(NamedTuple):
  """A short run.

  Attributes:
    first, last: the states before and after it.
    metrics: of each step, means alone.
    norms: of each step, see `Stepped`.
    seconds: `input`, waiting for batches, and `step`, in all; without the first step of
      each shape, which is compiled.
  """

  first: TrainState
  last: TrainState
  metrics: Sequence[Mapping[str, float]]
  norms: Sequence[Mapping[str, float]]
  seconds: Mapping[str, float]

  @property
  def finite(self) -> bool:
    """Whether every metric of every step is."""
    return all(np.isfinite(v) for v in self.metrics[-1].values())

  @property
  def losses(self) -> list[float]:
    """`loss` of every step that counted; none where the step reports no such metric."""
    return [m['loss'] for m in self.metrics if 'loss' in m]


def with_norms(train_step: Callable, state: TrainState, batch: Batch) -> Callable:
  """The step, with the norms of what it watches as a third output."""
  closed, shapes = jax.make_jaxpr(train_step, return_shape=True)(state, batch)
  named = [(e.params['name'], e.outvars[0]) for e in watched(closed.jaxpr)]
  info = closed.jaxpr.debug_info._replace(result_paths=None)
  outvars = [*closed.jaxpr.outvars, *(v for _, v in named)]
  jaxpr = closed.jaxpr.replace(outvars=outvars, debug_info=info)
  program = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, closed.consts))
  treedef = jax.tree.structure(shapes)

  def step(state, batch):
    found = program(*jax.tree.leaves((state, batch)))
    own, seen = found[: treedef.num_leaves], found[treedef.num_leaves :]
    norms = {name: global_norm(x) for (name, _), x in zip(named, seen, strict=True)}
    return (*jax.tree.unflatten(treedef, own), norms)

  return step


def shortened(config: Any, **fields: Any) -> Any:
  """A copy with other fields; those that the Config refuses keep their value."""
  for name, value in fields.items():
    try:
      config = dataclasses.replace(config, **{name: value})
    except (ConfigError, TypeError):
      continue
  return config


def num_classes(experiment: Experiment) -> int | None:
  """Classes of what an experiment predicts; None: it predicts none."""
  for function in experiment.functions.values():
    for field in function.outputs.values():
      if field.kind == 'probabilities' and isinstance(field.shape[-1], int):
        return field.shape[-1]
  return None


class Subject:
  """One experiment on one device; reads its data once.

  Attributes:
    build: config -> Experiment.
    config: of the experiment, with the length of a short run.
    experiment: what `build` gives for it.
    data_dir: see `Dataset.load`.
    mesh: one device.
    compile_seconds: that tracing and compiling the train step took so far.
  """

  def __init__(
    self, build: Callable[[Any], Experiment], config: Config, data_dir: Any = None
  ):
    self.build, self.config, self.data_dir = build, config, data_dir
    self.experiment = build(config)
    self.mesh = sharding.make_mesh(None, jax.devices()[:1])
    self._placed: dict[int, feed.Placed] = {}
    self._getters: dict[tuple[int, int], Callable] = {}
    self._steps: dict[Any, Any] = {}
    self._evals: dict[str, Callable] = {}
    self.compile_seconds = 0.0

  @property
  def batch_rows(self) -> int:
    """Examples of one training batch, by the leading axis of its fields."""
    return max((x.shape[0] for x in self._fields().values() if x.shape), default=0)

  @property
  def by_example(self) -> bool:
    """Whether the leading axis of every field of a batch is that of the examples."""
    rows = {x.shape[:1] for x in self._fields().values()}
    whole = [s for s in self.experiment.train_data.placement.values() if not any(s)]
    return len(rows) == 1 and () not in rows and not whole

  def _fields(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return self.experiment.train_data.shapes[0]

  def place(self, dataset: Dataset) -> feed.Placed:
    """The data of a data set, read once. Raises DataError."""
    if id(dataset) not in self._placed:
      loaded = dataset.load(self.data_dir)
      self._placed[id(dataset)] = feed.place(dataset, loaded, self.mesh)
    return self._placed[id(dataset)]

  def batches(
    self, dataset: Dataset | None = None, stop: int | None = None
  ) -> Iterator[Batch]:
    """Placed batches of a data set, from the first on; of training where None.

    Args:
      dataset: of an evaluation, whose pass has an end; None: of training, without one.
      stop: how many; None: all of one pass.
    """
    training = dataset is None
    dataset = self.experiment.train_data if dataset is None else dataset
    placed = self.place(dataset)
    count = None if training else dataset.num_batches(placed.loaded.data)
    stops = [n for n in (stop, count) if n is not None]
    if not stops:
      raise ValueError('A stream without an end needs a number of batches.')
    if not isinstance(dataset, Resident):
      ahead = feed.stream(placed, 0, min(stops))
      try:
        yield from ahead
      finally:
        ahead.close()
      return
    for i in range(min(stops)):
      yield self._getter(dataset, dataset.shape_id(i))(placed.arrays, jnp.int32(i))

  def _getter(self, dataset: Dataset, shape_id: int) -> Callable:
    key = id(dataset), shape_id
    if key not in self._getters:
      self._getters[key] = jax.jit(lambda a, i: get_batch(dataset, a, i, shape_id))
    return self._getters[key]

  def batch(self) -> Batch:
    """The first batch of training."""
    return next(iter(self.batches(stop=1)))

  def evaluated(self) -> tuple[Callable, Batch]:
    """The step of the first evaluation, without dropout, and a batch of it.

    The train step and a batch of training where there is no evaluation.
    """
    for evaluation in self.experiment.evals.values():
      return evaluation.step, next(iter(self.batches(evaluation.data, 1)))
    return self.experiment.train_step, self.batch()

  def rows(self, dataset: Dataset, limit: int) -> dict[str, np.ndarray]:
    """Examples of a data set by field, on the host: those of weight 0 left out.

    Args:
      dataset: of training or of an evaluation.
      limit: examples, at most; of a stream without an end as many as its size.
    """
    per_batch = next(iter(dataset.shapes[0].values())).shape[0]
    size = dataset.size or self.place(dataset).loaded.origin.get('size')
    most = min(limit, size or limit)
    found: list[dict[str, np.ndarray]] = []
    for batch in self.batches(dataset, -(-most // per_batch)):
      host = {name: to_host(x) for name, x in batch.items()}
      if 'weight' in host:
        real = host['weight'] > 0
        host = {name: x[real] for name, x in host.items()}
      found.append(host)
    same = {k: v[0].shape[1:] for k, v in _by_field(found).items()}
    kept = [b for b in found if all(b[k].shape[1:] == s for k, s in same.items())]
    return {k: np.concatenate(v)[:most] for k, v in _by_field(kept).items()}

  def init(self) -> TrainState:
    """The state before step 0, as a run begins."""
    state = self._init(jax.random.key(self.config.seed))
    warm_start = self.experiment.warm_start
    return state if warm_start is None else warm_start(state)[0]

  @functools.cached_property
  def _init(self) -> Callable:
    return jax.jit(self.experiment.init)

  def step(self, state: TrainState, batch: Batch) -> Stepped:
    """One train step."""
    key = tuple((k, x.shape) for k, x in sorted(batch.items()))
    if key not in self._steps:
      start = time.monotonic()
      program = with_norms(self.experiment.train_step, state, batch)
      self._steps[key] = jax.jit(program).lower(state, batch).compile()
      self.compile_seconds += time.monotonic() - start
    return Stepped(*self._steps[key](state, batch))

  def run(
    self,
    steps: int,
    change: Callable[[Batch, int], Batch] = lambda batch, i: batch,
    after: Callable[[TrainState, TrainState, dict[str, float]], TrainState]
    | None = None,
    enough: Callable[[list[dict[str, float]]], bool] = lambda metrics: False,
  ) -> Run:
    """Trains from the beginning; ends earlier where a metric is not finite.

    Args:
      steps: how many.
      change: (batch, its number) -> what the step gets.
      after: (state before, state after, metrics) -> the state to go on with.
      enough: of the metrics so far, whether to end.
    """
    first = state = self.init()
    found, norms, seconds = [], [], {'input': 0.0, 'step': 0.0}
    batches, i = self.batches(stop=steps), 0
    while True:
      clock = time.monotonic()
      batch = next(batches, None)
      if batch is None:
        break
      jax.block_until_ready(batch)
      waited = time.monotonic() - clock
      compiled = self.compile_seconds
      clock = time.monotonic()
      new, sums, grads = self.step(state, change(batch, i))
      found.append(values(sums))
      if self.compile_seconds == compiled:  # Not of the step that was compiled first.
        seconds['input'] += waited
        seconds['step'] += time.monotonic() - clock
      norms.append({k: float(v) for k, v in jax.device_get(grads).items()})
      state, i = new if after is None else after(state, new, found[-1]), i + 1
      finite = all(np.isfinite(v) for v in found[-1].values())
      if not finite or enough(found):
        break
    return Run(first, state, found, norms, seconds)

  def evaluate(
    self, state: TrainState, name: str, most: int = 16, data: Any = None
  ) -> dict[str, float]:
    """What an evaluation reports as numbers, on its first batches.

    Args:
      state: that is evaluated.
      name: of the evaluation.
      most: batches.
      data: batches in place of its own.
    """
    evaluation = self.experiment.evals[name]
    batches = self.batches(evaluation.data, most) if data is None else data
    total = None
    step = self._eval_step(name, evaluation)
    for batch in batches:
      sums = step(state, batch)
      total = sums if total is None else add(total, sums)
    if total is None:
      return {}
    return scalars(evaluation.summarize(total))

  def _eval_step(self, name: str, evaluation: Eval) -> Callable:
    if name not in self._evals:
      self._evals[name] = jax.jit(evaluation.step)
    return self._evals[name]


def _by_field(batches: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
  names = batches[0] if batches else {}
  return {name: [b[name] for b in batches] for name in names}


def values(sums: Metrics) -> dict[str, float]:
  """Means of one step, on the host; members are averaged.

  Raw sums are left out, and means of nothing, as of a step that float16 skips.
  """
  means = jax.device_get({k: v for k, v in sums.items() if isinstance(v, Mean)})
  counted = {k: v for k, v in means.items() if np.all(v.count != 0)}
  found = {k: np.asarray(v, np.float64) for k, v in ratios(counted).items()}
  return {k: float(np.mean(v)) for k, v in found.items()}


def scalars(reported: Mapping[str, Any]) -> dict[str, float]:
  """The numbers among what an evaluation reports; of members their mean."""
  host = jax.device_get(dict(reported))
  numbers = {k: np.asarray(v) for k, v in host.items() if not isinstance(v, dict)}
  return {
    k: float(v.astype(np.float64).mean())
    for k, v in numbers.items()
    if v.ndim <= 1 and v.dtype.kind in 'biuf'
  }
