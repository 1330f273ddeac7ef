"""Run by sharding_test in a process of its own with eight simulated devices.

Prints one JSON object: parameters after ten steps on one device and on several meshes,
as largest differences, and what the placement rule did.
"""

import json
import pathlib
import sys

import jax

jax.config.update('jax_enable_x64', True)

import jax.numpy as jnp  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
import numpy as np  # noqa: E402

from dlx.errors import ConfigError  # noqa: E402
from dlx.layers.convolution import conv_general_dilated  # noqa: E402
from dlx.run import sharding  # noqa: E402
from dlx.run.dispatch import make_dispatch  # noqa: E402
from dlx.run.loop import fit  # noqa: E402
from dlx.run.reopen import evaluate  # noqa: E402
from dlx.state import zeros_like  # noqa: E402
from tests.dlx.run import kinds  # noqa: E402
from tests.dlx.train import supervised_test  # noqa: E402


def on_one_device(experiment, steps):
  """Parameters after some steps of the same dispatch on the first device alone."""
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  dispatch = make_dispatch(experiment, mesh)
  state = dispatch.init(jax.random.key(0))
  window = jax.device_put(zeros_like(dispatch.window), dispatch.arrays)
  arrays = jax.device_put(kinds.IMAGES, dispatch.arrays)
  for _ in range(steps):
    state, window, _ = dispatch.run[0](state, window, arrays, np.int32(1))
  return state.params


def convolution_after_a_divided_map():
  """Largest relative difference of images made by a map, convolved, from one device.

  Map and output channels lie along fsdp, and tensor is idle: XLA alone is wrong by 3.
  """
  rng = np.random.default_rng(0)
  args = (
    rng.normal(size=(16, 8)),
    rng.normal(size=(8, 64)),
    rng.normal(size=(4, 4, 1, 8)),
  )

  def f(z, kernel, window):
    image = (z @ kernel).reshape(16, 8, 8, 1)
    dimensions = ('NHWC', 'HWIO', 'NHWC')
    return conv_general_dilated(
      image, window, (2, 2), 'SAME', dimension_numbers=dimensions
    )

  mesh = sharding.make_mesh('data=2,fsdp=-1,tensor=2')
  specs = P(('data', 'fsdp')), P(None, 'fsdp'), P(None, None, None, 'fsdp')
  placed = [
    jax.device_put(x, sharding.on_mesh(mesh, s))
    for x, s in zip(args, specs, strict=True)
  ]
  alone = np.asarray(jax.jit(f)(*args))
  found = np.asarray(jax.jit(sharding.traced_under(mesh, f))(*placed))
  return float(np.abs(found - alone).max() / np.abs(alone).max())


def main(folder):
  found = {'devices': jax.device_count()}
  config, experiment = supervised_test.make(
    num_steps=10,
    batch_size=16,
    eval_batch_size=16,
    log_every_steps=5,
    micro_batches=2,
    ema_decay=0.9,
    compute_dtype='float64',
    param_dtype='float64',
    dropout=0.2,
    batch_norm=True,
  )
  sharding.SMALL = 16  # The parameters of this test are tiny; shard them all the same.
  # 'idle' computes the same on each of its eight devices.
  outcomes = {}
  for name, mesh in (
    ('data', 'data=8'),
    ('fsdp', 'fsdp=8'),
    ('both', 'data=2,fsdp=4'),
    ('idle', 'data=1,tensor=8'),
  ):
    outcomes[name] = fit(experiment, config, f'{folder}/{name}', mesh=mesh)
  base, alone = outcomes['idle'], on_one_device(experiment, config.num_steps)
  for name in ('data', 'fsdp', 'both', 'idle'):
    pairs = zip(jax.tree.leaves(outcomes[name].state.params), jax.tree.leaves(alone))
    found[name] = max(
      float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs
    )
    found[f'{name}_loss'] = abs(
      outcomes[name].metrics['test/loss'] - base.metrics['test/loss']
    )
  kernel = outcomes['fsdp'].state.params['Dense_0']['kernel']
  found['fsdp_spec'] = str(kernel.sharding.spec)
  found['moved'] = float(
    np.abs(
      np.asarray(kernel)
      - np.asarray(experiment.init(jax.random.key(0)).params['Dense_0']['kernel'])
    ).max()
  )
  # A checkpoint of one topology opens on another, and gives the same figures.
  other = evaluate(experiment, config, f'{folder}/fsdp', mesh='data=8')
  found['elsewhere'] = abs(other['test/loss'] - base.metrics['test/loss'])
  # The incomplete last batch of an evaluation over eight devices counts each once.
  count = jax.jit(experiment.evals['test'].step)
  data, total = experiment.evals['test'].data, 0.0
  for i in range(data.num_batches(kinds.IMAGES)):
    total += float(
      count(base.state, data.get(kinds.IMAGES, jnp.int32(i)))['loss'].count
    )
  found['counted'] = total
  try:
    fit(experiment, config, f'{folder}/bad', mesh='data=3')
  except ConfigError as error:
    found['bad_mesh'] = str(error)
  odd = experiment._replace(train_data=kinds.Rolling(kinds.IMAGES, 12))
  try:
    fit(odd, config, f'{folder}/odd', mesh='data=8')
  except ConfigError as error:
    found['odd_batch'] = str(error)
  val = experiment.evals['test']._replace(
    data=kinds.Rolling(kinds.IMAGES, 12, passes=True)
  )
  try:
    fit(
      experiment._replace(evals={'test': val}), config, f'{folder}/eval', mesh='data=8'
    )
  except ConfigError as error:
    found['odd_evaluation'] = [str(error), pathlib.Path(f'{folder}/eval').exists()]
  mesh = sharding.make_mesh('data=4,tensor=2')
  rows = sharding.on_mesh(mesh, P('data'))
  found['rows'] = [
    rows.devices_indices_map((16,))[d][0].start or 0 for d in mesh.devices.ravel()[:3]
  ]
  found['convolution'] = convolution_after_a_divided_map()
  print(json.dumps(found))


if __name__ == '__main__':
  main(sys.argv[1])
