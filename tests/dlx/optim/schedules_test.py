"""Schedules by name: values at key steps by hand, then torch's schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.errors import ConfigError

EPS = float(np.finfo(np.float32).eps)


def values(schedule, counts):
  return np.array(jax.vmap(schedule)(jnp.asarray(counts)))


@pytest.mark.parametrize(
  ('schedule', 'counts', 'wanted'),
  [
    (optim.exponential(2.0, 10, 0.01), [-1, 0, 5, 10, 20], [2, 2, 0.2, 0.02, 2e-4]),
    (optim.exponential(1.0, 1, 0.9), [0, 1, 2], [1, 0.9, 0.81]),
    (optim.warmup(0.2, 100), [-1, 0, 25, 100, 999], [0, 0, 0.05, 0.2, 0.2]),
    (optim.warmup(0.3, 5, 1 / 3), [0, 5, 6], [0.1, 0.3, 0.3]),
    (optim.warmup(0.2, 0), [0, 1], [0.2, 0.2]),
    (optim.named_schedule('constant', 0.1, 100), [0, 99], [0.1, 0.1]),
    (
      optim.named_schedule('step', 1.0, 100),
      [0, 29, 30, 59, 60, 89, 90, 99],
      [1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3],
    ),
    (
      optim.named_schedule('steps', 1.0, 100),
      [0, 49, 50, 74, 75, 99],
      [1, 1, 0.1, 0.1, 0.01, 0.01],
    ),
    (optim.named_schedule('steps', 1.0, 100, (0.2,)), [19, 20, 99], [1, 0.1, 0.1]),
    (optim.named_schedule('exponential', 1.0, 100), [0, 50, 100], [1, 0.1, 0.01]),
    (optim.named_schedule('cosine', 1.0, 100), [0, 50, 100], [1, 0.5, 0]),
    (
      optim.named_schedule('one_cycle', 0.1, 1000),
      [0, 300, 1000],
      [0.004, 0.1, 0.004 / 1e4],
    ),
    (optim.named_schedule('warmup', 1.0, 100), [0, 5, 10, 99], [0, 0.5, 1, 1]),
    (
      optim.named_schedule('warmup_cosine', 1.0, 100),
      [0, 5, 10, 55, 100],
      [0, 0.5, 1, 0.5, 0],
    ),
  ],
)  # fmt: skip
def test_by_hand(schedule, counts, wanted):
  # pow of float32 and 1 - cos are good to some eps of 1.
  np.testing.assert_allclose(
    values(schedule, counts), wanted, rtol=16 * EPS, atol=8 * EPS
  )


@pytest.mark.parametrize('name', sorted(optim.SCHEDULES))
def test_every_name_stays_in_bounds_at_any_length_and_takes_a_traced_peak(name):
  for num_steps in (1, 2, 7, 300):
    schedule = optim.named_schedule(name, 0.5, num_steps)
    got = values(schedule, np.arange(-1, num_steps + 5))
    assert np.isfinite(got).all() and got.min() >= 0 and got.max() <= 0.5
  swept = jax.vmap(lambda peak: optim.named_schedule(name, peak, 40)(17))(
    jnp.array([0.1, 0.2])
  )
  alone = [optim.named_schedule(name, peak, 40)(17) for peak in (0.1, 0.2)]
  np.testing.assert_allclose(swept, alone, rtol=8 * EPS)


def test_one_cycle_by_name_is_the_one_of_before():
  counts = np.arange(0, 50)
  np.testing.assert_array_equal(
    values(optim.named_schedule('one_cycle', 0.1, 50), counts),
    values(optim.one_cycle(0.1, 50), counts),
  )


def of_torch(make, peak, num_steps):
  """Rates of the first steps of a scheduler of torch."""
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  tx = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
  scheduler = make(torch.optim.lr_scheduler, tx)
  rates = []
  for _ in range(num_steps):
    rates.append(tx.param_groups[0]['lr'])
    tx.step()
    scheduler.step()
  return np.array(rates)


CASES = {
  'constant': (optim.constant(0.1), lambda of, tx: of.ConstantLR(tx, factor=1.0)),
  'step': (optim.step_decay(0.1, 30, 0.1), lambda of, tx: of.StepLR(tx, 30, 0.1)),
  'exponential': (
    optim.exponential(0.1, 1, 0.95),
    lambda of, tx: of.ExponentialLR(tx, 0.95),
  ),
  # Until T_max: torch's rises again after it, ours stays.
  'cosine': (optim.cosine(0.1, 100), lambda of, tx: of.CosineAnnealingLR(tx, 100)),
  # torch turns at pct_start * total_steps - 1 and ends at total_steps - 1.
  'one_cycle': (
    optim.one_cycle(0.1, 999, 299 / 999),
    lambda of, tx: of.OneCycleLR(tx, 0.1, 1000, pct_start=0.3),
  ),
  'warmup': (
    optim.warmup(0.1, 20, 0.25),
    lambda of, tx: of.LinearLR(tx, start_factor=0.25, total_iters=20),
  ),
  'warmup_cosine': (
    optim.warmup_cosine(0.1, 100, 20),
    lambda of, tx: of.SequentialLR(
      tx, [of.LinearLR(tx, 1e-9, total_iters=20), of.CosineAnnealingLR(tx, 80)], [20]
    ),
  ),
}


@pytest.mark.filterwarnings('ignore:The epoch parameter')  # Of SequentialLR itself.
@pytest.mark.parametrize('name', sorted(CASES))
def test_is_torch(name):
  schedule, make = CASES[name]
  num_steps = 1000 if name == 'one_cycle' else 100
  wanted = of_torch(make, 0.1, num_steps)
  got = values(schedule, np.arange(num_steps))
  # Values up to 0.1; cos and pow are good to some eps of 1.
  np.testing.assert_allclose(got, wanted, atol=0.1 * 32 * EPS)


def sweep():
  """(ours, torch's) by other options than those of CASES, 120 steps each."""
  for every, factor in ((1, 0.5), (7, 0.3), (50, 1.0), (200, 0.1)):
    yield (
      optim.step_decay(0.3, every, factor),
      lambda of, tx, e=every, g=factor: of.StepLR(tx, e, g),
    )
  for factor in (0.5, 0.9, 1.0):
    yield (
      optim.exponential(0.3, 1, factor),
      lambda of, tx, g=factor: of.ExponentialLR(tx, g),
    )
  for at, factor in (((0.25,), 0.2), ((0.1, 0.5, 0.75), 0.5), ((), 0.1)):
    yield (
      optim.drops(0.3, 120, at, factor),
      lambda of, tx, at=at, g=factor: of.MultiStepLR(tx, [int(120 * a) for a in at], g),
    )
  for length, last in ((120, 0.0), (150, 0.2), (121, 1.0)):
    yield (
      optim.cosine(0.3, length, last),
      lambda of, tx, n=length, m=last: of.CosineAnnealingLR(tx, n, 0.3 * m),
    )
  for steps, first in ((1, 0.5), (40, 1 / 3), (119, 1e-3), (500, 0.1)):
    yield (
      optim.warmup(0.3, steps, first),
      lambda of, tx, n=steps, f=first: of.LinearLR(tx, f, total_iters=n),
    )
  # torch turns at pct_start * total_steps - 1 and ends at total_steps - 1.
  for top, rise, fall in ((12, 10.0, 1e3), (60, 2.0, 1e4), (90, 25.0, 50.0)):
    yield (
      optim.one_cycle(0.3, 119, (top - 1) / 119, rise, fall),
      lambda of, tx, t=top, r=rise, f=fall: of.OneCycleLR(
        tx, 0.3, 120, pct_start=t / 120, div_factor=r, final_div_factor=f
      ),
    )
  for top, first, last in ((24, 0.2, 0.0), (60, 0.5, 0.25)):
    yield (
      optim.triangle(0.3, 120, top / 120, first, last),
      lambda of, tx, t=top, f=first, m=last: of.SequentialLR(
        tx,
        [
          of.LinearLR(tx, f, total_iters=t),
          of.LinearLR(tx, 1.0, m, total_iters=120 - t),
        ],
        [t],
      ),
    )


@pytest.mark.filterwarnings('ignore:The epoch parameter')  # Of SequentialLR itself.
def test_other_options_are_torch_s():
  pairs = list(sweep())
  of_all = lambda counts: [jax.vmap(schedule)(counts) for schedule, _ in pairs]
  found = jax.jit(of_all)(jnp.arange(120))
  for i, (x, (_, make)) in enumerate(zip(found, pairs, strict=True)):
    # Values up to 0.3; torch goes step by step, in float64.
    np.testing.assert_allclose(
      x, of_torch(make, 0.3, 120), rtol=1e-4, atol=0.3 * 32 * EPS, err_msg=str(i)
    )


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda: optim.exponential(0.1, 0), 'every_steps=0 .* at least 1'),
    (lambda: optim.exponential(0.1, 1, -1.0), 'factor=-1.0 .* at least 0'),
    (lambda: optim.warmup(0.1, -1), 'warmup_steps=-1 .* at least 0'),
    (lambda: optim.warmup(0.1, 5, 2.0), r'first_fraction=2.0 .* in \[0, 1\]'),
    (lambda: optim.named_schedule('cosine', 0.1, 0), 'num_steps=0 .* at least 1'),
    (lambda: optim.named_schedule('sine', 0.1, 5), 'schedule=sine .* one of constant'),
  ],
)
def test_impossible_numbers(make, message):
  with pytest.raises(ConfigError, match=message):
    make()
