"""Tests for dlx/run/records/workdir.py: whose folder it is, and who may write there."""

import json
import pathlib

from absl.testing import absltest, parameterized

from dlx.errors import ConfigError
from dlx.run.records.workdir import Asked, Workdir, move_aside

CONFIG = {'lr': 0.1, 'features': [1, 2], 'num_steps': 10, 'keep_checkpoints': 2}
SOURCES = {'fork': b'lr = 1\nwidth = 2\n', 'helper': b'x = 1\n'}
RENAMED = {'renamed': SOURCES['fork'], 'h': SOURCES['helper']}
ASKED = Asked(name='/home/me/fork.py', config=CONFIG, sources=SOURCES)
DATA = {'train': {'name': 'toy', 'sha256': 'aa', 'path': '/data/toy'}}
RECORD = {'experiment': ASKED.name, 'config': CONFIG, 'threads': -1, 'data': DATA}


class WorkdirTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def begin(self, data=DATA, **changes):
    asked = ASKED._replace(**changes)
    folder = Workdir(self.path, asked)
    folder.begin({**RECORD, 'config': asked.config, 'data': data})
    self.addCleanup(folder.close)
    return folder

  def train(self, finished=False):
    """A run that saved step 5, or all of them."""
    self.begin().close()
    (self.path / 'checkpoints' / '5').mkdir(parents=True)
    (self.path / '.saved').write_text('')
    if finished:
      result = {'step': 10, 'metrics': {}, 'stopped_early': False}
      (self.path / 'result.json').write_text(json.dumps(result))

  def refused(self, message, **changes):
    before = (self.path / 'config.json').read_bytes()
    with self.assertRaisesRegex(ConfigError, message) as caught:
      self.begin(**changes)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual((self.path / 'config.json').read_bytes(), before)

  def test_fresh_then_resumed(self):
    fresh = Workdir(self.path, ASKED)
    self.assertFalse(self.path.exists())  # Looking writes nothing.
    self.train()
    written = json.loads((self.path / 'config.json').read_text())
    self.assertEqual(written, RECORD | {'source': written['source']})
    self.assertFalse(fresh.resumed)
    again = self.begin()
    self.assertTrue(again.resumed)
    self.assertIsNone(again.finished)
    self.assertRegex(again.changed(), r'^threads was -1, is \d+')

  def test_a_folder_in_which_nothing_was_saved_belongs_to_nobody(self):
    self.begin().close()
    other = {'name': 'mlp', 'config': {'lr': 3.0}, 'sources': {'mlp': b''}}
    self.assertFalse(self.begin(**other).resumed)
    self.assertEqual(
      json.loads((self.path / 'config.json').read_text())['config'], {'lr': 3.0}
    )

  def test_tuples_equal_the_lists_that_json_makes_of_them(self):
    self.train()
    self.assertTrue(self.begin(config=CONFIG | {'features': (1, 2)}).resumed)

  @parameterized.parameters(
    ({'name': 'mlp', 'sources': {'mlp': b''}}, r'of --exp=/home/me/fork.py, not of'),
    ({'config': CONFIG | {'lr': 0.2}}, r'\(lr: 0.1 there, 0.2 here\)'),
    ({'config': CONFIG | {'new': 3}}, r'\(new: None there, 3 here\)'),
    (
      {'config': CONFIG | {'new': 3}, 'defaults': {'new': 2}},
      r'\(new: None there, 3 here\)',
    ),
    ({'config': CONFIG | {'num_steps': 9}}, r'\(num_steps: 10 there, 9 here\)'),
    ({'config': {'num_steps': 10, 'keep_checkpoints': 2}}, 'features: .* there, None'),
  )
  def test_another_run_is_refused(self, other, message):
    self.train()
    self.refused(message, **other)

  @parameterized.parameters(
    ({'config': CONFIG | {'keep_checkpoints': 9}}, 'keep_checkpoints was 2, is 9'),
    (
      {'config': CONFIG | {'new': 3}, 'defaults': {'new': 3}},
      'new=3 is new since the run began',
    ),
    ({'config': CONFIG | {'num_steps': 99}}, 'num_steps was 10, is 99'),
  )
  def test_what_may_change_is_said_and_written(self, other, note):
    self.train()
    again = self.begin(**other)
    self.assertStartsWith(again.changed(), note)
    written = json.loads((self.path / 'config.json').read_text())
    self.assertEqual(written['config'], other['config'])
    self.assertEqual(written['threads'], -1)  # The start stays on record.

  @parameterized.parameters(
    {'name': '/elsewhere/fork.py'},
    {'name': '/elsewhere/renamed.py', 'sources': RENAMED},
  )
  def test_files_may_move_and_be_renamed(self, **other):
    self.train(finished=True)
    moved = self.path.with_name('moved')
    self.path.rename(moved)
    self.path = moved
    again = self.begin(**other)
    self.assertIsNotNone(again.finished)
    self.assertEqual(again.notes, [])

  def test_changed_source_is_told_and_the_former_kept(self):
    self.train()
    new = {'fork': b'lr = 3\nwidth = 2\n', 'other': b''}
    again = self.begin(sources=new)
    self.assertRegex(
      again.changed(),
      r'source: fork \(1 lines added, 1 removed\), other is new, helper is gone; kept '
      r'in .*source/before_1',
    )
    folder = self.path / 'source'
    self.assertEqual((folder / 'before_1' / 'fork.py').read_bytes(), SOURCES['fork'])
    self.assertEqual((folder / 'before_1' / 'helper.py').read_bytes(), b'x = 1\n')
    self.assertEqual((folder / 'fork.py').read_bytes(), new['fork'])
    again.close()
    third = self.begin(sources=new)
    self.assertNotIn('source', third.changed())
    third.close()
    self.assertIn('before_2', self.begin().changed())

  def test_a_finished_run_of_other_source_is_refused(self):
    self.train(finished=True)
    self.assertIsNotNone(self.begin().finished)
    changed = SOURCES | {'helper': b'x = 2\n'}
    self.refused(
      r'finished run of other source \(helper \(1 lines added', sources=changed
    )

  def test_a_finished_run_goes_on_to_more_steps_unless_it_stopped_early(self):
    self.train(finished=True)
    longer = {'config': CONFIG | {'num_steps': 20}}
    again = Workdir(self.path, ASKED._replace(**longer))
    self.assertIsNone(again.finished)
    self.assertEqual(again.shorter, 10)
    stopped = {'step': 5, 'metrics': {}, 'stopped_early': True}
    (self.path / 'result.json').write_text(json.dumps(stopped))
    self.assertIsNotNone(Workdir(self.path, ASKED._replace(**longer)).finished)

  def test_other_data_are_refused_unless_that_is_said(self):
    self.train()
    moved = {'train': DATA['train'] | {'path': '/elsewhere'}}
    self.begin(data=moved).close()
    other = {'train': DATA['train'] | {'sha256': 'bb'}}
    self.refused('other data .train.sha256 was aa, is bb', data=other)
    again = self.begin(data=other, data_changed=True)
    self.assertStartsWith(again.changed(), 'train.sha256 was aa, is bb')
    again.close()
    self.begin(data=other)  # Theirs from now on.

  def test_checkpoints_or_config_that_are_gone_are_missed(self):
    self.train()
    (self.path / 'checkpoints' / '5').rmdir()
    self.refused('its checkpoints are gone')
    (self.path / 'checkpoints').rmdir()
    self.refused('its checkpoints are gone')
    (self.path / 'config.json').unlink()
    with self.assertRaisesRegex(ConfigError, 'checkpoints and no config.json'):
      self.begin()

  def test_a_finished_run_needs_no_checkpoints(self):
    self.train(finished=True)
    (self.path / 'checkpoints' / '5').rmdir()
    self.assertIsNotNone(Workdir(self.path, ASKED).finished)

  def test_second_process_is_kept_out_until_the_first_is_gone(self):
    first = self.begin()
    with self.assertRaisesRegex(ConfigError, 'another process is running there'):
      self.begin()
    with self.assertRaisesRegex(ConfigError, 'another process is running in'):
      move_aside(self.path)
    first.close()
    self.begin()

  def test_two_that_look_at_once_are_compared_under_the_lock(self):
    late = Workdir(self.path, ASKED._replace(config=CONFIG | {'lr': 9.0}))
    self.train()
    with self.assertRaisesRegex(ConfigError, 'lr: 0.1 there, 9.0 here'):
      late.begin({**RECORD, 'config': CONFIG | {'lr': 9.0}})

  def test_moved_aside(self):
    self.assertIsNone(move_aside(self.path))
    for i in (1, 2):
      self.train()
      self.assertEqual(move_aside(self.path), f'{self.path}.before_{i}')
      self.assertFalse(self.path.exists())
    self.assertTrue((self.path.with_name('run.before_2') / 'config.json').exists())
    with self.assertRaisesRegex(ConfigError, 'object store and cannot be renamed'):
      move_aside('gs://bucket/run')

  @parameterized.parameters('lr=[1e-3]', 'a*', 'what?', 'a\\b')
  def test_a_path_that_is_a_pattern(self, name):
    self.path = self.path / name
    with self.assertRaisesRegex(ConfigError, 'which checkpoints take for a pattern'):
      self.begin()

  def test_a_path_that_is_too_long(self):
    self.path = self.path / ('x' * 300)
    with self.assertRaisesRegex(ConfigError, 'cannot be .* read .the path is too long'):
      self.begin()

  def test_folder_that_cannot_be_made(self):
    file = self.path.with_name('file')
    file.write_text('')
    self.path = file / 'run'
    with self.assertRaisesRegex(ConfigError, 'cannot be written'):
      self.begin()

  @parameterized.parameters('config.json', 'result.json')
  def test_damaged_record(self, name):
    self.train()
    (self.path / name).write_text('{"step": ')
    with self.assertRaises(ConfigError):
      self.begin()


if __name__ == '__main__':
  absltest.main()
