"""Run by every_mesh_test in a process of its own with eight simulated devices.

Reads lines `EXPERIMENT MESH MESH ...`, a mesh as in --mesh. Answers each with one line:
a JSON object, by mesh, of how far five steps on eight devices end from five on one.
"""

import functools
import importlib
import json
import sys
import time
import traceback
from typing import Any

import jax
import numpy as np

from dlx.data.dataset import Resident
from dlx.run import sharding
from dlx.run.dispatch import make_dispatch
from dlx.state import is_key, leaves_by_path, zeros_like
from launch.flags import experiments_by_name
from tests.every_experiment.fields import with_known

STEPS = 5
# Fields that many configs have: the least that still has every part.
LESS = {
  'num_layers': 2,
  'width': 16,
  'context': 16,
  'features': (8, 8),
  'dense': 16,
  'encoder.features': (8, 8),
  'encoder.strides': (2, 2),
  'encoder.groups': 4,
  'unet.channels': (16,),
  'hidden': 16,
  'projection': 8,
  'queue': 32,
  'embedding': 8,
  'latents': 4,
  'length': 10,
  'examples': 64,
  'window': 4,
  'teacher.features': (8,),
  'teacher.dense': 16,
  'generator_width': 8,
  'discriminator_width': 8,
  'members': 2,
  'noise': 8,
  # Several phases: each is seen.
  'judge.num_steps': 2,
  'teacher.num_steps': 2,
  'source.num_steps': 2,
  'encoder.num_steps': 2,
  'warmup_steps': 2,
}
# What the fields above leave unseen, or cannot be with others.
FIELDS: dict[str, dict[str, Any]] = {
  'adding': {'features': (8,)},
  'sst2': {'features': (8,)},
  'cnn': {'features': (4, 8)},
  # The features of a batch have mean 0: of a class that it lacks, the first gradient is
  # 0, and Adam would divide rounding by itself.
  'linear_probe': {'batch_size': 64},
  'ensemble': {'features': (8,), 'labels': 200},
}


def small(name: str):
  """The experiment with the least net, in float64."""
  module = importlib.import_module(experiments_by_name.module_name(name))
  fields = {
    'num_steps': STEPS,
    'batch_size': 16,
    'eval_batch_size': 16,
    'eval_every_steps': None,
    'compute_dtype': 'float64',
    'param_dtype': 'float64',
  }
  fields |= FIELDS.get(name, {})
  less = {key: value for key, value in LESS.items() if key not in fields}
  return module.build(with_known(module.Config(**fields), less))


@functools.cache
def read(data):
  return data.load().data


def after_steps(built, mesh) -> tuple[dict[str, np.ndarray], int]:
  """State after the steps and summed metrics, by path; how many leaves lie apart.

  Those are counted that are not whole on every device.
  """
  dispatch = make_dispatch(built, mesh)
  state = dispatch.init(jax.random.key(0))
  window = jax.device_put(zeros_like(dispatch.window), dispatch.arrays)
  data = built.train_data
  assert isinstance(data, Resident)
  arrays = jax.device_put(read(data), dispatch.arrays)
  step = 0
  while step < STEPS:
    shape_id, n = data.shape_id(step), 1
    while step + n < STEPS and data.shape_id(step + n) == shape_id:
      n += 1
    state, window, bad = dispatch.run[shape_id](state, window, arrays, np.int32(n))
    assert int(bad) < 0, f'step {int(bad)} is not finite'
    step += n
  found = leaves_by_path({'state': state, 'metrics': window})
  apart = sum(not x.sharding.is_fully_replicated for x in found.values())
  return {k: np.array(x) for k, x in found.items() if not is_key(x)}, apart


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """Largest difference, relative to the largest entry; 0 or inf of what is no float."""
  if not np.issubdtype(b.dtype, np.floating):
    return 0.0 if np.array_equal(a, b) else float('inf')
  # Zeros that learn move by a learning rate: 1e-3 or so.
  scale = max(float(np.abs(b).max(initial=0)), 1e-3)
  return float(np.abs(a - b).max(initial=0)) / scale


def compare(name: str, meshes: list[str]) -> dict[str, Any]:
  start = time.process_time()
  built = small(name)
  alone, _ = after_steps(built, sharding.make_mesh('data=1', jax.devices()[:1]))
  out: dict[str, Any] = {'one': {'seconds': time.process_time() - start}}
  for text in meshes:
    start = time.process_time()
    found, apart = after_steps(built, sharding.make_mesh(text))
    assert found.keys() == alone.keys()
    far = {path: distance(found[path], alone[path]) for path in alone}
    out[text] = {
      'far': {path: far[path] for path in sorted(far, key=far.__getitem__)[::-1]},
      'apart': apart,
      'seconds': time.process_time() - start,
    }
  return out


def main():
  sharding.SMALL = 16  # The nets are tiny; shard them all the same.
  assert jax.device_count() == 8 and jax.config.read('jax_enable_x64')
  for line in sys.stdin:
    name, *meshes = line.split()
    try:
      answer = compare(name, meshes)
    except Exception:
      answer = {'error': traceback.format_exc()[-3000:]}
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main()
