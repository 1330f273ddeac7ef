"""Run by multihost_test in two processes with two devices each.

Prints one JSON object: for every mesh the rows that this process reads, and whether
what the devices then hold is the batch; whether values survive the way there and back,
and have one checksum wherever they lie.
"""

import json
import sys

import jax
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.batches.resident import Shuffled
from dlx.data.batches.streamed import ShuffledStream
from dlx.data.dataset import Loaded, Source
from dlx.run import feed, processes, sharding
from dlx.run.checkpoint import checksums

MESHES = ('data=4', 'fsdp=4', 'data=2,tensor=2', 'data=2,sequence=2', 'tensor=4')
N, B = 40, 16


def main(argv):
  address, count, process = argv
  jax.distributed.initialize(address, int(count), int(process))
  found = {}
  data = {'x': np.arange(3 * N, dtype=np.float32).reshape(N, 3)}
  origin = {'name': 'x', 'split': 'train', 'kind': 'generated', 'size': N}
  shapes = {'x': jax.ShapeDtypeStruct((3,), np.float32)}
  source = Source('x', 'train', shapes, N, lambda _: Loaded(data, origin))
  streamed = ShuffledStream(source, B, seed=3, num_workers=0)
  resident = Shuffled(source, B, 3)
  for text in MESHES:
    mesh = sharding.make_mesh(text)
    placed = sharding.batch_shardings(mesh, streamed)['x']
    rows = sharding.rows_of_process(placed, (B, 3))
    batches = feed.stream(feed.place(streamed, streamed.load(), mesh), 0, 4)
    same = [
      np.array_equal(
        processes.to_host(batch['x']), streamed.get(data, step, slice(0, B))['x']
      )
      for step, batch in enumerate(batches)
    ]
    batches.close()
    arrays = feed.place(resident, resident.load(), mesh).arrays
    get = jax.jit(resident.get, out_shardings={'x': placed})
    gathered = processes.to_host(get(arrays, np.int32(2))['x'])
    same.append(np.array_equal(gathered, streamed.get(data, 2, slice(0, B))['x']))
    found[text] = [rows.start, rows.stop, len(same), all(same)]
  mesh = sharding.make_mesh('data=4')
  data['all'] = np.arange(N, dtype=np.int32)
  shapes['all'] = jax.ShapeDtypeStruct((), np.int32)
  streamed = ShuffledStream(source, B, seed=3, num_workers=0)
  streamed.placement = {'all': P()}
  batches = feed.stream(feed.place(streamed, streamed.load(), mesh), 0, 2)
  found['whole'] = [
    np.array_equal(
      processes.to_host(batch[name]), streamed.get(data, step, slice(0, B))[name]
    )
    for step, batch in enumerate(batches)
    for name in ('x', 'all')
  ]
  batches.close()
  split = sharding.on_mesh(mesh, P('data'))
  keys = processes.put(jax.random.split(jax.random.key(1), 4), split)
  found['keys'] = [
    keys.is_fully_addressable,
    np.array_equal(
      processes.to_host(keys),
      jax.random.key_data(jax.random.split(jax.random.key(1), 4)),
    ),
  ]
  again = processes.put({'x': processes.put(data['x'], split)}, split)['x']
  found['again'] = np.array_equal(processes.to_host(again), data['x'])
  mesh = sharding.make_mesh('data=2,tensor=2')
  host = {str(i): np.full((16, 8), i, np.float32) for i in range(80)}
  leaves = processes.put(host, sharding.on_mesh(mesh, P('tensor')))
  sums = [
    checksums.as_text(jax.device_get(checksums.inspect(tree)[0]))
    for tree in (leaves, host)
  ]
  found['sums'] = sums[0] == sums[1]
  print('FOUND', json.dumps(found), flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
