"""Tests for dlx/run/records/workdir.py: whose folder it is, and who may write there."""

import json
import pathlib

from absl.testing import absltest, parameterized

from dlx.errors import ConfigError
from dlx.run.records.workdir import Workdir

CONFIG = {'lr': 0.1, 'features': [1, 2]}
RECORD = {'experiment': 'cnn', 'config': CONFIG, 'threads': -1}


class WorkdirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def begin(self, **kwargs):
    folder = Workdir(self.path, **{'name': 'cnn', 'config': CONFIG, **kwargs})
    folder.begin(RECORD)
    self.addCleanup(folder.close)
    return folder

  def test_fresh_then_resumed(self):
    fresh = Workdir(self.path, name='cnn', config=CONFIG)
    self.assertFalse(self.path.exists())  # Looking writes nothing.
    fresh.begin(RECORD)
    self.assertFalse(fresh.resumed)
    self.assertEqual(json.loads((self.path / 'config.json').read_text()), RECORD)
    fresh.close()
    again = self.begin()
    self.assertTrue(again.resumed)
    self.assertIsNone(again.finished)
    self.assertEqual(again.record, RECORD)
    self.assertRegex(again.changed(), r'threads was -1, is \d+')

  def test_tuples_equal_the_lists_that_json_makes_of_them(self):
    self.begin().close()
    self.assertTrue(self.begin(config={'lr': 0.1, 'features': (1, 2)}).resumed)

  @parameterized.parameters(
    ({'name': 'mlp'}, r'a run of --exp=cnn, not of --exp=mlp'),
    ({'config': {'lr': 0.2, 'features': [1, 2]}}, r'\(lr: 0.1 there, 0.2 here\)'),
    ({'config': {**CONFIG, 'new': 3}}, r'\(new: None there, 3 here\)'),
  )
  def test_another_run_is_refused(self, other, message):
    self.begin().close()
    before = (self.path / 'config.json').read_bytes()
    with self.assertRaisesRegex(ConfigError, message):
      self.begin(**other)
    self.assertEqual((self.path / 'config.json').read_bytes(), before)

  def test_second_process_is_kept_out_until_the_first_is_gone(self):
    first = self.begin()
    with self.assertRaisesRegex(ConfigError, 'another process is running there'):
      self.begin()
    first.close()
    self.begin()

  def test_folder_that_cannot_be_made(self):
    file = self.path.with_name('file')
    file.write_text('')
    self.path = file / 'run'
    with self.assertRaisesRegex(ConfigError, 'cannot be written'):
      self.begin()

  @parameterized.parameters('config.json', 'result.json')
  def test_damaged_record(self, name):
    self.begin().close()
    (self.path / name).write_text('{"step": ')
    with self.assertRaises(ConfigError):
      self.begin()


if __name__ == '__main__':
  absltest.main()
