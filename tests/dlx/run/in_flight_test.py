"""Tests for dlx/run/in_flight.py: how many steps a dispatch takes."""

from absl.testing import absltest, parameterized

from dlx.run.in_flight import TARGET_S, Pace


class Device:
  """A clock that a dispatch turns on."""

  def __init__(self, overhead_s: float, step_s: float):
    self.now, self.overhead_s, self.step_s = 0.0, overhead_s, step_s

  def run(self, pace: Pace, dispatches: int, most: int = 10**9) -> list[int]:
    taken = []
    for _ in range(dispatches):
      steps = min(pace.steps, most)
      self.now += self.overhead_s + steps * self.step_s
      pace.ended(steps)
      taken.append(steps)
    return taken


class PaceTest(parameterized.TestCase):
  @parameterized.parameters(1e-5, 1e-4, 1e-3, 0.02, 0.06, 0.2, 30.0)
  def test_dispatches_come_to_last_as_long_as_they_should(self, step_s):
    device = Device(2e-4, step_s)
    taken = device.run(Pace(now=lambda: device.now), 30)
    self.assertEqual(taken[0], 1)
    for before, after in zip(taken, taken[1:]):
      self.assertLessEqual(after, 4 * before)
    # One step where that is long already; else no more than the target, and half of it
    # at least, as a whole number of steps is taken.
    if step_s > TARGET_S / 2:
      self.assertEqual(taken[-1], 1)
    else:
      self.assertBetween(taken[-1] * step_s, TARGET_S / 2, TARGET_S)

  def test_a_late_look_does_not_count(self):
    """The host was busy: one dispatch seems long, the next takes no time at all."""
    device = Device(0.0, 2**-10)
    pace = Pace(now=lambda: device.now)
    device.run(pace, 20)
    self.assertEqual(pace.steps, 102)
    device.now += 5.0
    pace.ended(102)
    pace.ended(102)
    self.assertEqual(pace.steps, 102)

  def test_time_without_work_does_not_count(self):
    device = Device(0.0, 2**-10)
    pace = Pace(now=lambda: device.now)
    for _ in range(20):
      device.run(pace, 3)
      pace.idle()
      device.now += 60.0
    self.assertEqual(pace.steps, 102)

  def test_short_dispatches_before_a_boundary_do_not_slow_the_others(self):
    device = Device(0.0, 2**-10)
    pace = Pace(now=lambda: device.now)
    device.run(pace, 20)
    device.run(pace, 1, most=1)
    self.assertEqual(pace.steps, 102)

  def test_a_slower_device_is_followed(self):
    device = Device(0.0, 2**-10)
    pace = Pace(now=lambda: device.now)
    device.run(pace, 20)
    device.step_s = 2**-5
    device.run(pace, 10)
    self.assertEqual(pace.steps, 3)

  def test_a_fixed_number_stays(self):
    device = Device(0.0, 1e-6)
    self.assertEqual(set(device.run(Pace(7, lambda: device.now), 20)), {7})


if __name__ == '__main__':
  absltest.main()
