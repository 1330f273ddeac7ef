"""Tests for dlx/run/loop.py: copies that nobody asked for, and the profiler's steps.

That every kind of training runs under the guard contract_test.py shows.
"""

import functools
import pathlib
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import numpy as np

from dlx.run import sharding
from dlx.run.in_flight import InFlight
from dlx.run.loop import fit
from dlx.run.programs import Programs
from dlx.run.timing import Clock
from tests.dlx.run import kinds

STREAMED = functools.partial(kinds.two_shapes, streamed=True)
HIDDEN = 'Disallowed host-to-device transfer'


def on_host(self, n):
  """In place of `InFlight.count`: a number that is copied at every dispatch."""
  return np.int32(n)


def not_placed(batch, *_):
  """In place of `sharding.put_batch`: a batch that is copied when it is used."""
  return batch


def looks_at_the_state(programs, at, to, *, advance=Programs.advance):
  """In place of `Programs.advance`: a host that asks how far the device is."""
  at = advance(programs, at, to)
  assert int(at.state.step) == at.step
  return at


class TimeTest(parameterized.TestCase):
  @parameterized.parameters((STREAMED, 2, 5), (kinds.classifier, 1, 0))
  def test_what_the_loop_waits_for_is_no_reading(self, build, reading, waiting):
    """Of six batches the first belongs to the start; those on the devices are there."""
    spans = []

    def span(clock, kind, *, span=Clock.span):
      spans.append(kind)
      return span(clock, kind)

    config = kinds.Small(num_steps=6, eval_every_steps=None)
    with mock.patch.object(Clock, 'span', span):
      fit(build(config)._replace(evals={}), config, self.create_tempdir().full_path)
    self.assertEqual((spans.count('read'), spans.count('input')), (reading, waiting))


class TransferTest(parameterized.TestCase):
  def run_with(self, owner, name, planted, build=kinds.classifier):
    config = kinds.Small(num_steps=8)
    with mock.patch.object(owner, name, planted):
      return fit(build(config), config, self.create_tempdir().full_path)

  @parameterized.parameters(
    (InFlight, 'count', on_host), (sharding, 'put_batch', not_placed, STREAMED)
  )
  def test_a_hidden_copy_to_the_device_is_an_error(self, *planted):
    with self.assertRaisesRegex(jax.errors.JaxRuntimeError, HIDDEN):
      self.run_with(*planted)

  def test_a_hidden_copy_from_the_device_is_an_error_but_on_a_cpu(self):
    """A CPU's arrays lie where NumPy reads them: nothing is copied, or refused."""
    planted = Programs, 'advance', looks_at_the_state
    if jax.default_backend() == 'cpu':
      self.assertEqual(self.run_with(*planted).status, 'finished')
    else:
      with self.assertRaisesRegex(Exception, 'Disallowed device-to-host transfer'):
        self.run_with(*planted)

  def test_who_asks_for_another_guard_has_it(self):
    with jax.transfer_guard('allow'):
      self.assertEqual(self.run_with(InFlight, 'count', on_host).status, 'finished')


class TraceTest(absltest.TestCase):
  def test_the_profiler_sees_the_steps(self):
    config = kinds.Small(num_steps=6, steps_per_dispatch=1)
    folder = self.create_tempdir().full_path
    fit(kinds.classifier(config), config, folder, trace_steps=(2, 4))
    (trace,) = pathlib.Path(folder).rglob('*.xplane.pb')
    self.assertIn(b'step_num', trace.read_bytes())


if __name__ == '__main__':
  absltest.main()
