"""Tests for dlx/run/records/tensorboard.py, read back by TensorBoard's own readers."""

import io
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import numpy as np
from PIL import Image
from tensorboard import context as tb_context
from tensorboard.backend.event_processing import (
  data_provider,
  event_accumulator,
  plugin_event_accumulator,
  plugin_event_multiplexer,
)
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context
from tensorboard.util import tensor_util

from dlx.run.records import tensorboard


class WholeObjects(pathlib.PurePosixPath):
  """An object store that can write and read whole objects, and nothing else."""

  blobs: dict[str, bytes] = {}
  writes: list[str] = []

  def __fspath__(self):
    return 'objects://' + '/'.join(self.parts[1:])

  __str__ = __fspath__

  def write_bytes(self, data):
    self.writes.append(self.name)
    self.blobs[self.name] = bytes(data)

  def exists(self):
    return bool(self.blobs)

  def iterdir(self):
    return [self / name for name in self.blobs]

  def refuse(self, *args, **kwargs):
    raise AssertionError('An object store has neither append nor rename.')

  open = rename = replace = mkdir = refuse


epath.register_path_cls('objects://')(WholeObjects)


def load(folder):
  return plugin_event_accumulator.EventAccumulator(str(folder)).Reload()


def scalars(folder, tag):
  """(step, value) of a scalar, as TensorBoard shows it."""
  return [
    (e.step, float(tensor_util.make_ndarray(e.tensor_proto)))
    for e in load(folder).Tensors(tag)
  ]


class EventWriterTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def test_scalars(self):
    with tensorboard.EventWriter(self.folder) as events:
      self.assertEmpty(list(self.folder.iterdir()))  # The constructor does no I/O.
      for step in (1, 2, 2**33):
        events.scalars(step, {'train/loss': np.float32(step / 4), 'test/m': [1.0, 2.0]})
    self.assertEqual(
      scalars(self.folder, 'train/loss'), [(1, 0.25), (2, 0.5), (2**33, 2.0**31)]
    )
    self.assertEqual(
      scalars(self.folder, 'test/m/1'), [(1, 2.0), (2, 2.0), (2**33, 2.0)]
    )
    self.assertNotIn(os.uname().nodename, next(self.folder.iterdir()).name)

  def test_flush_makes_events_visible(self):
    with tensorboard.EventWriter(self.folder) as events:
      events.scalars(1, {'train/loss': 1.0})
      events.flush()
      self.assertLen(scalars(self.folder, 'train/loss'), 1)

  @parameterized.parameters(1, 3, 4)
  def test_image(self, channels):
    image_HWC = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    with tensorboard.EventWriter(self.folder) as events:
      events.image(3, 'samples', image_HWC)
    (event,) = load(self.folder).Tensors('samples')
    width, height, data = tensor_util.make_ndarray(event.tensor_proto)
    self.assertEqual((event.step, int(width), int(height)), (3, 7, 5))
    got = np.asarray(Image.open(io.BytesIO(data))).reshape(image_HWC.shape)
    np.testing.assert_array_equal(got, image_HWC)

  def test_image_of_another_type_is_refused(self):
    for bad in (np.zeros((2, 2, 3)), np.zeros((2, 2, 2), np.uint8)):
      with self.assertRaisesRegex(ValueError, 'uint8 HWC with 1, 3 or 4'):
        tensorboard.png(bad)

  def test_histogram(self):
    x = np.concatenate([np.random.default_rng(0).normal(size=1000), [0, 1e30, -1e30]])
    with tensorboard.EventWriter(self.folder) as events:
      events.histogram(3, 'w', x.reshape(17, 59))
    (event,) = load(self.folder).Tensors('w')
    left, right, count = tensor_util.make_ndarray(event.tensor_proto).T
    self.assertEqual(count.sum(), x.size)
    # TensorBoard's edges are f32; the mass below any edge is that of the data.
    for edge in right[count > 0][:-1]:
      below = (x < edge * (1 - 1e-6 * np.sign(edge))).sum()
      self.assertLessEqual(abs(count[right <= edge].sum() - below), 1)
    self.assertEqual((left[0], right[-1]), (np.float32(-1e30), np.float32(1e30)))
    self.assertTrue((left <= right).all())

  def test_histogram_by_hand(self):
    proto = tensorboard.histogram_proto([0.0, 0.0, 1.0, np.nan, np.inf, -2.0])
    self.assertEqual((proto.num, proto.sum, proto.sum_squares), (4, -1, 5))
    self.assertEqual((proto.min, proto.max), (-2, 1))
    self.assertEqual([c for c in proto.bucket if c], [1, 2, 1])
    limits = dict(zip(proto.bucket, proto.bucket_limit))
    self.assertEqual(limits[2], 1e-12)  # Zeros lie in [0, 1e-12).
    self.assertEqual(list(proto.bucket_limit), sorted(proto.bucket_limit))
    # Between two full buckets lies one empty one, outside none.
    self.assertLen(proto.bucket, 5)
    empty = tensorboard.histogram_proto([np.nan])
    self.assertEqual((empty.num, list(empty.bucket)), (0, []))

  def test_histogram_edges_hold_the_value_they_start_with(self):
    limits = tensorboard.bucket_limits()
    x = limits[800]
    proto = tensorboard.histogram_proto([x])
    full = list(proto.bucket).index(1)
    self.assertEqual(proto.bucket_limit[full], limits[801])

  def test_a_resumed_run_replaces_what_it_writes_again(self):
    with tensorboard.EventWriter(self.folder) as events:
      for step in (10, 20, 30, 40):
        events.scalars(step, {'train/loss': 1.0})
      events.scalars(40, {'test/gone': 1.0})
    with tensorboard.EventWriter(self.folder, purge_step=20) as events:
      events.scalars(30, {'train/loss': 2.0})
      events.close()
      events.scalars(40, {'train/loss': 2.0})  # A second file of the same session.
    want = [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]
    # The reader of today and the one before it purge by different rules.
    old = event_accumulator.EventAccumulator(str(self.folder)).Reload()
    self.assertEqual([(e.step, e.value) for e in old.Scalars('train/loss')], want)
    self.assertEqual(scalars(self.folder, 'train/loss'), want)
    self.assertEmpty(scalars(self.folder, 'test/gone'))
    self.assertLen(list(self.folder.iterdir()), 3)

  def test_a_file_cut_by_a_kill_hides_nothing_else(self):
    with tensorboard.EventWriter(self.folder) as events:
      events.scalars(10, {'train/loss': 1.0})
      events.scalars(20, {'train/loss': 1.0})
    (path,) = self.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    with tensorboard.EventWriter(self.folder, purge_step=10) as events:
      events.scalars(20, {'train/loss': 2.0})
    self.assertEqual(scalars(self.folder, 'train/loss'), [(10, 1.0), (20, 2.0)])

  def test_hparams(self):
    """Two runs of different experiments side by side, as the HParams tab sees them."""
    configs = {
      'a': {'lr': 0.1, 'stream': True, 'name': 'x', 'off': None, 'n': 3},
      'b': {'lr': 0.2, 'model': {'width': 8}, 'kernel': (3, 3)},
    }
    for run, config in configs.items():
      with tensorboard.EventWriter(self.folder / run) as events:
        (self.folder / run).mkdir()
        events.scalars(5, {'test/accuracy': 0.25})
        events.hparams(
          5, config, {'test/accuracy': 0.25, 'train/loss': np.float32(0.5)}
        )
    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(self.folder)).Reload()
    context = backend_context.Context(
      base_plugin.TBContext(
        data_provider=data_provider.MultiplexerDataProvider(runs, str(self.folder))
      )
    )
    request = tb_context.RequestContext()
    experiment = context.experiment_from_metadata(
      request, '', True, context.hparams_metadata(request, ''), []
    )
    types = {h.name: h.type for h in experiment.hparam_infos}
    string, flag, real = 1, 2, 3  # api_pb2.DataType
    self.assertEqual(
      types,
      {
        'lr': real,
        'n': real,
        'stream': flag,
        'name': string,
        'off': string,
        'model.width': real,
        'kernel': string,
      },
    )
    self.assertEqual(
      {m.name.tag for m in experiment.metric_infos}, {'test/accuracy', 'train/loss'}
    )
    self.assertEqual(scalars(self.folder / 'a', 'test/accuracy'), [(5, 0.25)])
    self.assertEqual(scalars(self.folder / 'a', 'train/loss'), [(5, 0.5)])

  def test_object_store(self):
    WholeObjects.blobs.clear()
    WholeObjects.writes.clear()
    events = tensorboard.EventWriter('objects://bucket/run')
    events.scalars(1, {'train/loss': 1.0})
    self.assertEmpty(WholeObjects.writes)
    events.flush()
    events.flush()
    events.scalars(2, {'train/loss': 2.0})
    spool = events._spool
    events.close()
    self.assertFalse(spool.exists())
    self.assertLen(WholeObjects.writes, 2)
    self.assertLen(WholeObjects.blobs, 1)
    for name, data in WholeObjects.blobs.items():
      (self.folder / name).write_bytes(data)
    self.assertEqual(scalars(self.folder, 'train/loss'), [(1, 1.0), (2, 2.0)])

  def test_object_store_begins_a_file_when_one_is_long(self):
    WholeObjects.blobs.clear()
    self.enterContext(mock.patch.object(tensorboard, 'FILE_BYTES', 60))
    with tensorboard.EventWriter('objects://bucket/run', purge_step=0) as events:
      for step in (1, 2, 3):
        events.scalars(step, {'train/loss': 1.0})
        events.flush()
    self.assertLen(WholeObjects.blobs, 3)
    for name, data in WholeObjects.blobs.items():
      (self.folder / name).write_bytes(data)
    self.assertLen(scalars(self.folder, 'train/loss'), 3)

  def test_tensorflow_and_torch_stay_out_where_they_are_installed(self):
    # Stand-ins that can be found: an import of either is seen in sys.modules.
    for name in ('tensorflow', 'torch'):
      (self.folder / 'site' / name).mkdir(parents=True)
      (self.folder / 'site' / name / '__init__.py').write_text('')
    code = (
      'import sys\n'
      'import numpy as np\n'
      'from dlx.run.records import tensorboard\n'
      'assert "tensorboard" not in sys.modules\n'
      'with tensorboard.EventWriter(sys.argv[1]) as w:\n'
      '  w.scalars(1, {"a": 1.0}); w.histogram(1, "h", np.ones(3))\n'
      '  w.image(1, "i", np.zeros((2, 2, 3), np.uint8)); w.hparams(1, {"lr": 1}, {})\n'
      'print(sorted({"tensorflow", "torch", "jax"} & set(sys.modules)))\n'
    )
    out = subprocess.run(
      [sys.executable, '-c', code, str(self.folder)],
      check=True,
      capture_output=True,
      env=os.environ
      | {'PYTHONPATH': os.pathsep.join([str(self.folder / 'site'), os.getcwd()])},
    )
    self.assertEqual(out.stdout.strip(), b'[]')


class ClockTest(absltest.TestCase):
  def test_a_later_session_comes_after_the_first_though_its_clock_is_behind(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    names = []
    for now in (2000.5, 1000.25):
      with mock.patch('time.time', return_value=now):
        with tensorboard.EventWriter(folder) as events:
          events.scalars(1, {'a': 1.0})
      names.append(max(path.name for path in folder.iterdir()))
    self.assertLess(*names)
    self.assertStartsWith(names[1], 'events.out.tfevents.0000002000.500001.')


if __name__ == '__main__':
  absltest.main()
