"""Tests for dlx/run/records/progress.py."""

import io
import os
import re
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized
import numpy as np

from dlx.run.records import progress


class Clock:
  """Stands in for the time module of the progress module."""

  def __init__(self):
    self.now = 100.0

  def monotonic(self):
    return self.now


class ProgressTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.clock = Clock()
    self.enterContext(mock.patch.object(progress, 'time', self.clock))
    self.stream = io.StringIO()

  def test_plain_lines(self):
    with progress.Progress(1000, stream=self.stream) as bar:
      self.clock.now += 30  # Compilation.
      bar.update(50, {'accuracy': np.float32(0.91), 'loss': 0.31234}, 1234.4)
      self.clock.now += 5
      bar.update(100, {'accuracy': 0.92, 'loss': 0.3}, None)
      bar.note('saved step 100')
      bar.evaluation(100, {'test/accuracy': 0.9722, 'test/loss': [0.1, 0.3]})
    # 30 s for 50 steps leave 950 steps 570 s; 5 s for 50 leave 900 steps 90 s.
    self.assertEqual(
      self.stream.getvalue(),
      (
        'step 50/1000  loss 0.3123  accuracy 0.91  1234 examples/s  eta 0:09:30\n'
        'step 100/1000  loss 0.3  accuracy 0.92  eta 0:01:30\n'
        'saved step 100\n'
        'step 100/1000  test/loss 0.2  test/accuracy 0.9722\n'
      ),
    )

  def test_time_left_forgets_the_far_past(self):
    bar = progress.Progress(10_000, stream=self.stream, start=100)
    for step in range(110, 1110, 10):
      self.clock.now += 50.0 if step < 500 else 1.0
      bar.update(step, {}, None)
    self.assertIn('step 1100/10000  eta 0:14:50', self.stream.getvalue())

  @parameterized.parameters(('dumb', False), ('xterm', True))
  def test_a_dumb_terminal_gets_lines(self, term, bar):
    self.stream.isatty = lambda: True
    with mock.patch.dict(progress.os.environ, {'TERM': term}):
      with progress.Progress(10, stream=self.stream) as shown:
        shown.update(5, {'loss': 1.0}, None)
    self.assertEqual('\x1b[' in self.stream.getvalue(), bar)

  def test_a_step_reported_twice(self):
    bar = progress.Progress(10, stream=self.stream, start=5)
    bar.update(5, {'loss': np.nan}, 0.0)
    self.assertEqual(
      self.stream.getvalue(), 'step 5/10  loss nan  0 examples/s  eta -:--:--\n'
    )

  def test_bar(self):
    with progress.Progress(1000, terminal=True, stream=self.stream) as bar:
      self.assertIn('compiling', self.stream.getvalue())
      self.clock.now += 30
      bar.update(50, {'loss': 0.31234, 'x': 1, 'y': 2, 'z': 3, 'w': 4}, 12345.0)
      bar.note('[bold]not markup[/bold]')
      bar.evaluation(50, {'test/accuracy': 0.9722})
    bar.close()
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', self.stream.getvalue())
    self.assertIn('[bold]not markup[/bold]\n', text)
    self.assertIn('step 50/1000  test/accuracy 0.9722\n', text)
    self.assertNotIn('z 3', text)
    for part in ('50/1000', 'loss 0.3123', '12,345 examples/s', '0:09:30 left'):
      self.assertIn(part, text.splitlines()[-1])

  def test_the_bar_of_a_run_that_ends_before_its_last_step_is_full(self):
    with progress.Progress(900, terminal=True, stream=self.stream) as bar:
      self.clock.now += 30
      bar.update(300, {'loss': 0.5}, None)
      bar.ended(300)
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', self.stream.getvalue())
    last = text.splitlines()[-1]
    self.assertIn('300/300', last)
    self.assertIn('0:00:00 left', last)

  def test_the_bar_leaves_room_for_what_a_terminal_echoes(self):
    self.enterContext(mock.patch.dict(os.environ, COLUMNS='80'))
    with progress.Progress(10, terminal=True, stream=self.stream) as bar:
      bar.update(5, {'loss': 0.5}, 100.0)
    text = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', self.stream.getvalue())
    last = text.splitlines()[-1]
    self.assertLen(last.rstrip(), 78)
    self.assertEqual(last[78:].strip(), '')

  def test_bar_gives_the_cursor_back_after_an_error(self):
    with self.assertRaises(KeyError):
      with progress.Progress(10, terminal=True, stream=self.stream):
        raise KeyError
    self.assertIn('\x1b[?25h', self.stream.getvalue())

  @parameterized.parameters(
    (0, '0:00:00'),
    (59.6, '0:01:00'),
    (3661, '1:01:01'),
    (360000, '100:00:00'),
    (None, '-:--:--'),
    (float('inf'), '-:--:--'),
  )
  def test_duration(self, seconds, text):
    self.assertEqual(progress.duration(seconds), text)

  def test_rich_is_imported_for_a_terminal_only(self):
    code = (
      'import sys\nfrom dlx.run.records import progress\n'
      'with progress.Progress(10) as p: p.update(5, {"loss": 1.0}, 2.0)\n'
      'assert not {"rich", "jax", "tqdm"} & set(sys.modules)\n'
    )
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    self.assertIn(b'step 5/10  loss 1  2 examples/s', out.stderr)


if __name__ == '__main__':
  absltest.main()
