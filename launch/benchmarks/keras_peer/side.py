"""Keras 3 on JAX, for the models that its own layers make: compile and fit."""

# pyright: reportMissingImports=false
from typing import Any, Mapping, Sequence

import keras
import numpy as np

from launch.benchmarks import workloads
from launch.benchmarks.flax_peer import side


class Side:
  """A workload in Keras."""

  def __init__(self, name: str, **fields: Any):
    if name not in workloads.KERAS:
      known = ', '.join(workloads.KERAS)
      raise ValueError(f'no model of {name} here: Keras has {known}')
    built = workloads.build(name, **fields)
    self._name = name
    self._config: Any = built.config
    self._mean_std = side.mean_std(workloads.WORKLOADS[name].experiment, built.config)
    pairs = [self._pair(batch) for batch in workloads.batches(built, 8)]
    self._x, self._y = (np.concatenate(part) for part in zip(*pairs, strict=True))
    self._rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # By number of steps.
    self.model = _model(name, built.config)
    self.model.compile(
      optimizer=keras.optimizers.Adam(self._config.lr, epsilon=1e-8),
      loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    self.model.build(self._x.shape)

  def _pair(self, batch: Mapping[str, np.ndarray]):
    mean, std = self._mean_std
    return np.float32((batch['image'] / 255.0 - mean) / std), batch['label']

  def load(self, params: Any, stats: Any):
    """Takes the parameters and statistics of dlx's model."""
    del stats  # Zeros and ones, as Keras's own.
    params = dict(params)
    values = []
    for layer in self.model.layers:
      names = [variable.name for variable in layer.trainable_variables]
      if not names:
        continue
      found = params[layer.name]
      parts = {'kernel': 'kernel', 'bias': 'bias', 'gamma': 'scale', 'beta': 'bias'}
      values += [found[parts[name]] for name in names]
    for variable, value in zip(self.model.trainable_variables, values, strict=True):
      variable.assign(np.asarray(value))

  def step(self, n: int) -> float:
    """n steps of `fit`; the mean loss over them."""
    rows = self._config.batch_size
    if n not in self._rows:
      times = -(-n * rows // len(self._x))
      x, y = (np.concatenate([part] * times) for part in (self._x, self._y))
      self._rows[n] = x[: n * rows], y[: n * rows]
    x, y = self._rows[n]
    quiet: Any = {'verbose': 0}
    found: Any = self.model.fit(x, y, batch_size=rows, shuffle=False, **quiet)
    return float(found.history['loss'][-1])

  def losses(self, batches: Sequence[Any], rates: Sequence[float]) -> list[float]:
    """The loss of each of some given steps."""
    found = []
    for batch, rate in zip(batches, rates, strict=True):
      self.model.optimizer.learning_rate = rate
      found.append(float(self.model.train_on_batch(*self._pair(batch))))
    return found


def _model(name: str, c: Any) -> keras.Model:
  layers = keras.layers
  if name == 'mlp':
    hidden = [
      layers.Dense(width, activation='relu', name=f'hidden_{i}')
      for i, width in enumerate(c.features)
    ]
    head = layers.Dense(10, name='head')
    return keras.Sequential([layers.Flatten(), *hidden, head])
  blocks = []
  for i, width in enumerate(c.features):
    blocks += [
      layers.Conv2D(width, 3, padding='same', use_bias=False, name=f'conv_{i}'),
      layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f'norm_{i}'),
      layers.ReLU(),
      layers.MaxPooling2D(),
    ]
  head = [
    layers.Flatten(),
    layers.Dense(c.dense, activation='relu', name='hidden'),
    layers.Dense(10, name='head'),
  ]
  return keras.Sequential(blocks + head)


def build(name: str, **fields: Any) -> Side:
  """The side of a workload; `fields` of the Config in place of the workload's.

  Raises:
    ValueError: a model that is not written here.
  """
  return Side(name, **fields)
