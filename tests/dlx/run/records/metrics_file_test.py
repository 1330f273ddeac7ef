"""Tests for dlx/run/records/metrics_file.py, on a disk and in an object store."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from etils import epath
import numpy as np

from dlx.errors import StorageError
from dlx.run.records.json_files import read_json, write_json
from dlx.run.records.metrics_file import MetricsFile


class WholeFiles(pathlib.PurePosixPath):
  """An object store of one process: whole files only, no append, no rename, no folder.

  Registered for whole:// below; `blobs` is the store.
  """

  blobs: dict[str, bytes] = {}
  writes: list[str] = []

  def __fspath__(self):
    return 'whole://' + '/'.join(self.parts[1:])

  __str__ = __fspath__

  def write_bytes(self, data):
    self.writes.append(self.name)
    self.blobs[str(self)] = bytes(data)

  def write_text(self, text):
    self.write_bytes(text.encode())

  def read_bytes(self):
    if str(self) not in self.blobs:
      raise FileNotFoundError(str(self))
    return self.blobs[str(self)]

  def read_text(self):
    return self.read_bytes().decode()

  def exists(self):
    return str(self) in self.blobs

  def unlink(self, missing_ok=False):
    del missing_ok
    del self.blobs[str(self)]

  def glob(self, pattern):
    return (
      type(self)(b)
      for b in list(self.blobs)
      if pathlib.PurePosixPath(b).match(pattern) and b.rsplit('/', 1)[0] == str(self)
    )

  def refuse(self, *args, **kwargs):
    raise AssertionError('An object store has neither append nor rename.')

  open = rename = replace = mkdir = refuse


epath.register_path_cls('whole://')(WholeFiles)


def fill(metrics, steps, value=0.5):
  for step in steps:
    metrics.write(step, 'train', {'loss': value}, {'seconds': {'total': step / 10}})
    if step % 20 == 0:
      metrics.write(
        step, 'test', {'accuracy': value}, {'seconds': {'total': step / 10}}
      )


def brief(lines):
  return [(r['step'], r['split']) for r in lines]


class LocalTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.path = self.workdir / 'metrics.jsonl'

  def metrics(self, workdir=None, **kwargs):
    metrics = MetricsFile(workdir or self.workdir, **kwargs)
    self.addCleanup(metrics.close)
    return metrics

  def test_one_line(self):
    metrics = self.metrics()
    self.assertFalse(self.path.exists())  # The constructor does no I/O.
    metrics.write(
      50, 'train', {'loss': np.float32(0.1), 'm': np.ones(2)}, {'seconds': 2}
    )
    self.assertEqual(
      self.path.read_text(),
      '{"step": 50, "split": "train", "metrics": {"loss": 0.10000000149011612, '
      '"m": [1.0, 1.0]}, "time": {"seconds": 2}}\n',
    )

  def test_numbers_that_are_not_finite_read_back(self):
    metrics = self.metrics()
    metrics.write(1, 'train', {'a': np.nan, 'b': -np.inf}, {})
    got = metrics.read()[0]['metrics']
    self.assertTrue(np.isnan(got['a']))
    self.assertEqual(got['b'], -np.inf)
    self.assertIn('{"a": null, "b": null}', self.path.read_text())

  @parameterized.parameters('write', 'flush')
  def test_a_workdir_that_goes_away_under_the_run(self, how):
    for gone in (shutil.rmtree, lambda f: f.rename(f.with_name(f'{f.name}-moved'))):
      folder = pathlib.Path(tempfile.mkdtemp())
      metrics = MetricsFile(folder)
      metrics.write(1, 'train', {}, {})
      metrics.flush()
      gone(folder)
      with self.assertRaisesRegex(StorageError, 'removed or moved under the run'):
        metrics.write(2, 'train', {}, {}) if how == 'write' else metrics.flush()
      metrics.close()
      self.assertFalse(folder.exists())

  def test_a_line_outlives_sigkill(self):
    code = (
      'import os, signal, sys\n'
      'from dlx.run.records.metrics_file import MetricsFile\n'
      'm = MetricsFile(sys.argv[1])\n'
      'for i in range(3): m.write(i, "train", {"loss": 1.5}, {})\n'
      'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    done = subprocess.run([sys.executable, '-c', code, str(self.workdir)], check=False)
    self.assertEqual(done.returncode, -signal.SIGKILL)
    self.assertEqual(brief(self.metrics().read()), [(i, 'train') for i in range(3)])

  def test_rewind_gives_the_run_that_was_never_killed(self):
    straight = self.metrics()
    fill(straight, range(10, 101, 10))
    whole = self.path.read_bytes()
    # Restored at 60, evaluated at 60: lines past both are written again.
    resumed = self.metrics()
    resumed.rewind(60, 60)
    self.assertEqual(brief(resumed.read())[-2:], [(60, 'train'), (60, 'test')])
    self.assertTrue(whole.startswith(self.path.read_bytes()))
    fill(resumed, range(70, 101, 10))
    resumed.close()
    self.assertEqual(self.path.read_bytes(), whole)

  def test_rewind_looks_at_each_split(self):
    metrics = self.metrics()
    fill(metrics, range(10, 61, 10))
    metrics.rewind(step=50, evaluated=20)
    self.assertEqual(
      brief(metrics.read()),
      [
        (10, 'train'),
        (20, 'train'),
        (20, 'test'),
        (30, 'train'),
        (40, 'train'),
        (50, 'train'),
      ],
    )

  def test_rewind_keeps_bytes_that_another_writer_chose(self):
    odd = b'{"metrics":{"loss":1e-1},  "split":"train","step":1}\n'
    self.path.write_bytes(odd + b'{"step": 9, "split": "train", "metrics": {}}\n')
    self.metrics().rewind(1, 1)
    self.assertEqual(self.path.read_bytes(), odd)

  def test_rewind_drops_a_half_written_line_and_touches_nothing_else(self):
    metrics = self.metrics()
    fill(metrics, [10])
    whole = self.path.read_bytes()
    before = os.stat(self.path).st_ino
    self.metrics().rewind(10, 10)
    self.assertEqual(os.stat(self.path).st_ino, before)  # Nothing to drop, no rewrite.
    # Half a line that is valid JSON by chance is half a line all the same.
    self.path.write_bytes(whole + whole[:-1])
    self.metrics().rewind(10, 10)
    self.assertEqual(self.path.read_bytes(), whole)

  def test_write_after_half_a_line_begins_a_line(self):
    self.path.write_bytes(
      b'{"step": 1, "split": "train", "metrics": {}}\n{"step": 2, "sp'
    )
    metrics = self.metrics()
    self.assertLen(metrics.read(), 1)
    metrics.write(3, 'train', {}, {})
    self.assertEqual(brief(metrics.read()), [(1, 'train'), (3, 'train')])

  def test_a_disk_that_takes_a_part_of_a_line_gets_the_rest(self):
    # As `write` of a disk that fills up, in the middle of which somebody makes room.
    metrics = self.metrics()
    fill(metrics, [1])
    file = metrics._file
    metrics._file = mock.Mock(wraps=file, write=lambda data: file.write(data[:7]))
    fill(metrics, [2, 3])
    self.assertEqual(brief(metrics.read()), [(i, 'train') for i in (1, 2, 3)])

  def test_a_damaged_line_costs_that_line_only(self):
    good = b'{"step": 1, "split": "train", "metrics": {}}\n'
    self.path.write_bytes(b'\0\0\0\n[1]\n{"step": 4}\n' + good)
    metrics = self.metrics()
    with self.assertLogs(level='WARNING') as logs:
      self.assertEqual(brief(metrics.read()), [(1, 'train')])
    self.assertLen(logs.output, 3)
    metrics.rewind(5, 5)
    self.assertEqual(self.path.read_bytes(), good)

  def test_nothing_there(self):
    metrics = self.metrics()
    self.assertEqual(metrics.read(), [])
    metrics.rewind(0, -1)
    metrics.flush()
    metrics.close()
    self.assertFalse(self.path.exists())


class ObjectStoreTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    WholeFiles.blobs.clear()
    WholeFiles.writes.clear()
    self.workdir = epath.Path('whole://bucket/run')

  def blob(self, name):
    return WholeFiles.blobs[f'whole://bucket/run/{name}']

  def names(self):
    return sorted(b.rsplit('/', 1)[1] for b in WholeFiles.blobs)

  def metrics(self, workdir=None, **kwargs):
    metrics = MetricsFile(workdir or self.workdir, **kwargs)
    self.addCleanup(metrics.close)
    return metrics

  def test_parts_and_the_whole(self):
    first = self.metrics()
    fill(first, [10, 20])
    self.assertEqual(self.names(), [])
    first.flush()
    fill(first, [30])
    first.flush()
    first.flush()  # Nothing new, nothing uploaded.
    self.assertEqual(WholeFiles.writes, ['metrics-00000.jsonl'] * 2)
    # Killed here. The next session begins a part of its own.
    second = self.metrics()
    fill(second, [40])
    second.flush()
    self.assertEqual(self.names(), ['metrics-00000.jsonl', 'metrics-00001.jsonl'])
    second.close()
    local = epath.Path(self.enterContext(tempfile.TemporaryDirectory()))
    same = self.metrics(local)
    fill(same, [10, 20, 30, 40])
    self.assertEqual(self.blob('metrics.jsonl'), (local / 'metrics.jsonl').read_bytes())
    self.assertEqual(self.metrics().read(), same.read())

  def test_a_part_has_a_size(self):
    metrics = self.metrics(part_bytes=150)
    for step in range(6):
      metrics.write(step, 'train', {'loss': 1.0}, {})
      metrics.flush()
    metrics.close()
    # 67 bytes a line: three lines pass 150 bytes.
    self.assertEqual(
      self.names(), ['metrics-00000.jsonl', 'metrics-00001.jsonl', 'metrics.jsonl']
    )
    self.assertEqual([r['step'] for r in metrics.read()], list(range(6)))

  def test_rewind_rewrites_the_parts_that_change(self):
    for steps in ([10, 20], [30, 40], [50]):
      metrics = self.metrics()
      fill(metrics, steps)
      metrics.close()
    WholeFiles.writes.clear()
    metrics = self.metrics()
    metrics.rewind(30, 30)
    self.assertCountEqual(
      WholeFiles.writes, ['metrics-00001.jsonl', 'metrics-00002.jsonl', 'metrics.jsonl']
    )
    self.assertEqual(
      brief(metrics.read()), [(10, 'train'), (20, 'train'), (20, 'test'), (30, 'train')]
    )
    fill(metrics, [40])
    metrics.close()
    self.assertEqual(self.blob('metrics.jsonl').count(b'\n'), 6)

  def test_a_local_workdir_that_was_copied_goes_on(self):
    (self.workdir / 'metrics.jsonl').write_bytes(
      b'{"step": 1, "split": "train", "metrics": {}}\n{"half'
    )
    metrics = self.metrics()
    metrics.rewind(1, 1)
    fill(metrics, [2])
    metrics.close()
    self.assertEqual(brief(metrics.read()), [(1, 'train'), (2, 'train')])
    self.assertEqual(self.blob('metrics.jsonl').count(b'\n'), 2)

  def test_json_is_written_whole(self):
    write_json(self.workdir / 'config.json', {'a': 1})
    self.assertEqual(read_json(self.workdir / 'config.json'), {'a': 1})
    self.assertEqual(WholeFiles.writes, ['config.json'])


if __name__ == '__main__':
  absltest.main()
