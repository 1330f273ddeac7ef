"""Run by sharded_test in a process of its own with eight simulated devices.

Prints one JSON object: by name, the largest difference of a value or gradient on a mesh
from that on one device, in float64.
"""

import json

import jax

jax.config.update('jax_enable_x64', True)

import jax.numpy as jnp  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
import numpy as np  # noqa: E402

from dlx import losses  # noqa: E402
from dlx.layers.normalisation import InstanceNorm, RMSNorm  # noqa: E402
from dlx.precision import unit  # noqa: E402
from dlx.run import sharding  # noqa: E402

LABEL = np.arange(16) % 3
INSTANCE, RMS = InstanceNorm(use_affine=False), RMSNorm(use_scale=False)
# Of x [16, 5, 8] and y, the same shape, both divided by rows.
CALLS = {
  'nt_xent': lambda x, y: losses.nt_xent(unit(x[:, 0]), unit(y[:, 0]), 0.5).loss_B,
  'symmetric_info_nce': lambda x, y: (
    losses.symmetric_info_nce(unit(x[:, 0]), unit(y[:, 0]), 0.5).loss_B
  ),
  'cross_entropy': lambda x, y: losses.softmax_cross_entropy(
    x[:, 0] + y[:, 0], LABEL, class_weight_K=jnp.arange(8.0), ignore=1
  ),
  'focal': lambda x, y: losses.softmax_focal(x[:, 0] + y[:, 0], LABEL),
  'triplet': lambda x, y: losses.triplet(x[:, 0], y[:, 0], y[:, 1]),
  'instance_norm': lambda x, y: INSTANCE.apply({}, x) * y,
  'rms_norm': lambda x, y: RMS.apply({}, x) * y,
}


def main():
  found = {'devices': jax.device_count()}
  x, y = np.random.default_rng(0).normal(size=(2, 16, 5, 8))
  for name, call in CALLS.items():

    def both(x, y, call=call):
      values = call(x, y)
      total = lambda x, y: jnp.sin(call(x, y)).sum()
      return values, jax.grad(total, (0, 1))(x, y)

    alone = jax.jit(both)(x, y)
    for text in ('data=8', 'data=2,fsdp=4'):
      mesh = sharding.make_mesh(text)
      rows = sharding.on_mesh(mesh, P(('data', 'fsdp')))
      placed = [jax.device_put(v, rows) for v in (x, y)]
      divided = jax.jit(sharding.traced_under(mesh, both))(*placed)
      pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(divided), strict=True)
      found[f'{name} {text}'] = max(float(np.abs(a - b).max()) for a, b in pairs)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
