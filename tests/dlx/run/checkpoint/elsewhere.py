"""Run by elsewhere_test in processes of its own; prints one JSON object.

meshes FOLDER             eight simulated devices: saved on each mesh, restored on all
pair FOLDER PORT INDEX    one of two processes with two devices each
save WORKDIR              eight devices, fsdp=8: steps 1 and 2
alone FOLDER              one device: restores what the pair has saved
"""

import json
import pathlib
import sys

from etils import epath
import jax

jax.config.update('jax_enable_x64', True)

import jax.numpy as jnp  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
import numpy as np  # noqa: E402

from dlx.run import sharding  # noqa: E402
from dlx.run.checkpoint import files  # noqa: E402
from dlx.run.checkpoint.checkpointer import Checkpointer  # noqa: E402
from dlx.run.checkpoint.checksums import as_text, inspect  # noqa: E402
from dlx.state import Mean, create, leaves_by_path  # noqa: E402

MESHES = (
  'data=8',
  'fsdp=8',
  'data=1',
  'tensor=2',
  'data=2,tensor=4',
  'fsdp=2,tensor=2,sequence=2',
)


def build(step):
  """(state, window) of numbers that differ from step to step."""
  noise = lambda i, *shape: jax.random.normal(
    jax.random.key(1000 * step + i), shape, jnp.float64
  )
  params = {
    'kernel': noise(0, 16, 24),
    'narrow': noise(1, 8, 8).astype(jnp.bfloat16),
    'odd': noise(2, 7).astype(jnp.float32),
  }
  state = create(
    params,
    {'mu': noise(3, 16, 24), 'count': jnp.int32(step)},
    jax.random.key(step),
    model_state={'long': jnp.arange(16), 'mask': jnp.arange(8) % 3 == 0},
  )
  return state, {'loss': Mean(noise(4), jnp.float32(step))}


def placed_on(mesh):
  """ShapeDtypeStructs of (state, window): split along every axis that divides."""

  def one(x):
    axes = list(mesh.axis_names)
    spec = []
    for size in x.shape:
      fits = bool(axes) and size % mesh.shape[axes[0]] == 0
      spec.append(axes.pop(0) if fits else None)
    return jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=NamedSharding(mesh, P(*spec))
    )

  return jax.tree.map(one, jax.eval_shape(lambda: build(0)))


def make(step, target):
  shardings = jax.tree.map(lambda x: x.sharding, target)
  return jax.jit(lambda: build(step), out_shardings=shardings)()


def sums(state, window):
  """Checksums by leaf: the same whatever the placement."""
  leaves = leaves_by_path({'state': state, 'window': window})
  return as_text(jax.device_get(inspect(leaves)[0]))


def is_placed(got, target):
  return all(
    x.sharding.is_equivalent_to(y.sharding, x.ndim)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(target), strict=True)
  )


def mesh_of(text):
  count = int(np.prod([int(part.split('=')[1]) for part in text.split(',')]))
  return sharding.make_mesh(text, jax.devices()[:count])


def meshes(folder):
  """Which pairs of meshes did not give equal bits where they were wanted."""
  wrong, targets = [], {text: placed_on(mesh_of(text)) for text in MESHES}
  split = jax.tree.leaves(targets['fsdp=8'])
  for i, writer in enumerate(MESHES):
    checkpointer = Checkpointer(epath.Path(folder) / str(i))
    checkpointer.save(3, *make(3, targets[writer]), {})
    checkpointer.wait()
    for reader in MESHES if i < 2 else MESHES[:3]:
      got = checkpointer.restore(*targets[reader])
      expected = sums(*make(3, targets[reader]))
      if (
        got is None
        or sums(got.state, got.window) != expected
        or not is_placed((got.state, got.window), targets[reader])
      ):
        wrong.append([writer, reader])
    checkpointer.close()
  return {
    'devices': jax.device_count(),
    'split': sum(not x.sharding.is_fully_replicated for x in split),
    'wrong': wrong,
  }


def save(workdir):
  checkpointer = Checkpointer(epath.Path(workdir) / 'checkpoints')
  for step in (1, 2):
    checkpointer.save(step, *make(step, placed_on(mesh_of('fsdp=8'))), {})
  checkpointer.close()


def pair(folder, port, index):
  """Two processes save, replace, and agree on what is damaged."""
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  jax.distributed.initialize(f'localhost:{port}', 2, int(index))
  target = placed_on(sharding.make_mesh('fsdp=4'))
  notes, folder = [], epath.Path(folder)
  checkpointer = Checkpointer(folder, keep=2, note=notes.append)
  for step in (1, 2, 3, 3):  # The second 3 replaces the first.
    checkpointer.save(step, *make(step, target), {})
  checkpointer.save(4, *make(4, target), {})
  checkpointer.wait()
  found = {'process': jax.process_index(), 'steps': [], 'equal': True}

  def restore():
    got = checkpointer.restore(*target)
    found['steps'].append(got and got.step)
    if got is not None:
      same = sums(got.state, got.window) == sums(*make(got.step, target))
      found['equal'] &= same and is_placed((got.state, got.window), target)

  restore()
  # What one process cannot read none takes, whichever it is.
  read, files.read_meta = files.read_meta, broken
  if jax.process_index() == 0:
    files.read_meta = read
  restore()
  files.read_meta = read
  # Restored on to: bits of the last one flip on the disk, seen by all.
  checkpointer.save(5, *make(5, target), {})
  checkpointer.wait()
  if jax.process_index() == 0:
    payload = max(
      (p for p in pathlib.Path(folder / '5').rglob('*') if p.is_file()),
      key=lambda p: p.stat().st_size,
    )
    data = bytearray(payload.read_bytes())
    data[len(data) // 2] ^= 1
    payload.write_bytes(data)
  restore()
  checkpointer.save(6, *make(6, target), {})
  checkpointer.close()
  return {**found, 'notes': notes}


def broken(path):
  """Stands for a disk that shows one process other bytes of step 4 than the others."""
  if path.name == '4':
    raise files.Damaged('meta/metadata does not match its digest')
  return _READ(path)


def alone(folder):
  target = placed_on(sharding.make_mesh('data=1'))
  checkpointer = Checkpointer(epath.Path(folder))
  got = checkpointer.restore(*target)
  assert got is not None
  return {
    'steps': checkpointer.steps(),
    'step': got.step,
    'equal': sums(got.state, got.window) == sums(*make(got.step, target)),
  }


_READ = files.read_meta

if __name__ == '__main__':
  tasks = {'meshes': meshes, 'pair': pair, 'save': save, 'alone': alone}
  print(json.dumps(tasks[sys.argv[1]](*sys.argv[2:])))
