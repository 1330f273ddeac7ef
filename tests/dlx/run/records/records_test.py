"""Tests for dlx/run/records/records.py."""

import json
import types
from unittest import mock

from absl.testing import absltest
from etils import epath
import numpy as np

from dlx.run import timing
from dlx.run.records.records import Records
from dlx.state import Mean


class Late:
  """A sum that is ready after two seconds of the clock, as one on a device."""

  def __init__(self, clock, value):
    self._clock, self._value = clock, value

  def __array__(self, *args, **kwargs):
    self._clock.now += 2.0
    return np.asarray(self._value)


class RateTest(absltest.TestCase):
  def test_of_a_window_of_one_dispatch_is_that_of_the_device(self):
    """Sent in a millisecond, done in two seconds: 4 steps of 8 rows, 16 a second."""
    clock = types.SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    self.enterContext(mock.patch.object(timing, 'time', clock))
    folder = epath.Path(self.create_tempdir().full_path)
    records = Records(
      types.SimpleNamespace(path=folder, changed=lambda: ''),
      own := timing.Clock(),
      num_steps=8,
      members=(),
      rows=8,
      step=0,
      evaluated=-1,
      restored=False,
      terminal=False,
    )
    with records:
      for step in (4, 8):
        with own.span('train'):
          clock.now += 0.001
        records.close_window(step, {'loss': Mean(Late(clock, 3.0), np.float32(2))})
      records.write_window()
    lines = [json.loads(x) for x in (folder / 'metrics.jsonl').read_text().splitlines()]
    self.assertEqual([x['time']['examples_per_second'] for x in lines], [16.0, 16.0])
    self.assertEqual([x['metrics']['loss'] for x in lines], [1.5, 1.5])


if __name__ == '__main__':
  absltest.main()
