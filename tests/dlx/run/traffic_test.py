"""Between two log lines the host sends programs, and little else: counted."""

import contextlib
import functools
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp

from dlx.run import sharding
from dlx.run.dispatch import make_dispatch
from dlx.run.loop import fit
from dlx.run.programs import Programs
from dlx.run.records.records import Records
from tests.dlx.run import kinds

LOG, K = 20, 4
ARRAY = type(jnp.zeros(()))


class Traffic:
  """What a run does in the log interval (20, 40], in order.

  Attributes:
    sent: dispatches, by the number of their steps.
    read: (values read, dispatches sent so far); one dispatch's ticket, or metrics.
  """

  def __init__(self):
    self.sent, self.read, self.tickets, self.watching = [], [], [], False

  @contextlib.contextmanager
  def watch(self):
    value, program = ARRAY._value, Programs._program
    advance, close = Programs.advance, Records.close_window

    def reading(array):
      if self.watching:
        found = [i for i, t in enumerate(self.tickets) if t is array]
        self.read.append((found[0] if found else 'metrics', len(self.sent)))
      return value.fget(array)

    def sending(programs, at, data):
      inner = program(programs, at, data)

      def call(state, window, data, n):
        out = inner(state, window, data, n)
        if self.watching:
          counts = programs._in_flight._counts.items()
          self.sent.append(next(k for k, v in counts if v is n))
          self.tickets.append(out[2])
        return out

      return call

    def from_the_first_log_line_on(programs, at, to):
      if at.step < LOG:
        return advance(programs, at, to)
      if at.step == LOG:  # What is in flight belongs to the interval before.
        programs.drain()
      self.watching = at.step < 2 * LOG
      with jax.transfer_guard_host_to_device('disallow_explicit'):
        return advance(programs, at, to)

    def to_the_second(records, step, sums):
      with jax.transfer_guard_host_to_device('disallow_explicit'):
        close(records, step, sums)
      self.watching = self.watching and step < 2 * LOG

    with (
      mock.patch.object(ARRAY, '_value', property(reading)),
      mock.patch.object(Programs, '_program', sending),
      mock.patch.object(Programs, 'advance', from_the_first_log_line_on),
      mock.patch.object(Records, 'close_window', to_the_second),
    ):
      yield


class TrafficTest(absltest.TestCase):
  def watched(self, build, **fields):
    """(its traffic, values in the sums of a log window)."""
    config = kinds.Small(
      num_steps=3 * LOG, log_every_steps=LOG, eval_every_steps=None,
      save_every_steps=None, **fields,
    )  # fmt: skip
    built, traffic = build(config), Traffic()
    with traffic.watch():
      fit(built, config, self.create_tempdir().full_path)
    window = make_dispatch(built, sharding.make_mesh()).window
    return traffic, len(jax.tree.leaves(window))

  def check(self, traffic: Traffic, values: int):
    """The guard has refused every transfer to the devices, so there was none."""
    tickets = [(t, sent) for t, sent in traffic.read if t != 'metrics']
    # A ticket is read when two dispatches are in flight and a third is to be sent.
    self.assertEqual(tickets, [(i, i + 2) for i in range(len(traffic.sent) - 2)])
    metrics = [sent for t, sent in traffic.read if t == 'metrics']
    # The sums of the interval before, once, when a dispatch of this one was sent.
    self.assertEqual(metrics, [1] * values)

  def test_resident_data(self):
    traffic, values = self.watched(kinds.classifier, steps_per_dispatch=K)
    self.assertEqual(traffic.sent, [K] * (LOG // K))
    self.check(traffic, values)

  def test_streamed_data_reach_the_devices_from_a_thread(self):
    build = functools.partial(kinds.two_shapes, streamed=True)
    traffic, values = self.watched(build)
    self.assertEqual(traffic.sent, [1] * LOG)
    self.check(traffic, values)


if __name__ == '__main__':
  absltest.main()
