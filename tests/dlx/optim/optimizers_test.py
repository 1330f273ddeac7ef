"""Optimisers: values at key steps, bounds, frozen bytes, tracers, references."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.errors import ConfigError

EPS = float(np.finfo(np.float32).eps)


def values(schedule, counts):
  return np.array(jax.vmap(schedule)(jnp.asarray(counts)))


def params() -> Any:
  a, b = jax.random.split(jax.random.key(0))
  return {
    'body': {'kernel': jax.random.normal(a, (3, 4)), 'bias': jnp.full(4, -0.0)},
    'head': {'kernel': jax.random.normal(b, (4, 2)), 'bias': jnp.array([-0.0, 0.5])},
  }


def grads_at(tree, step):
  keys = jax.random.split(jax.random.key(100 + step), 4)
  leaves, treedef = jax.tree.flatten(tree)
  new = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)]
  return jax.tree.unflatten(treedef, new)


def run(tx, tree: Any, steps: int) -> Any:
  @jax.jit
  def step(tree, state, grads):
    updates, state = tx.update(grads, state, tree)
    return optax.apply_updates(tree, updates), state

  state = tx.init(tree)
  for i in range(steps):
    tree, state = step(tree, state, grads_at(tree, i))
  return tree, state


class ScheduleTest(parameterized.TestCase):
  def test_one_cycle_by_hand(self):
    s = optim.one_cycle(0.1, 1000, 0.3, 25.0, 1e4)
    # Start .1/25, half-way up (.1 + .004)/2, top, half-way down, end .004/1e4.
    got = values(s, [-5, 0, 150, 300, 650, 1000, 5000])
    low = 0.004 / 1e4
    expected = [0.004, 0.004, 0.052, 0.1, (0.1 + low) / 2, low, low]
    # 1 - (1 - last) ease loses what is below eps of 1: 1e-8 absolute at peak .1.
    np.testing.assert_allclose(got, expected, rtol=8 * EPS, atol=0.1 * 2 * EPS)

  def test_warmup_cosine_by_hand(self):
    s = optim.warmup_cosine(2.0, 100, 20, 0.1)
    got = values(s, [-1, 0, 10, 20, 60, 100, 101])
    expected = [0, 0, 1, 2, 1.1, 0.2, 0.2]
    np.testing.assert_allclose(got, expected, rtol=8 * EPS, atol=8 * EPS)

  def test_drops_by_hand(self):
    rate = optim.drops(0.5, 10)
    values = [float(rate(t)) for t in (0, 4, 5, 6, 7, 9, 20)]
    np.testing.assert_allclose(values, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005, 0.005])
    rate = optim.drops(1.0, 10, at=(0.2,), factor=0.25)
    assert [float(rate(t)) for t in (1, 2, 9)] == [1.0, 0.25, 0.25]

  def test_step_decay_and_constant_by_hand(self):
    s = optim.step_decay(1.0, 30, 0.1)
    got = values(s, [-1, 0, 29, 30, 59, 60, 90])
    np.testing.assert_allclose(got, [1, 1, 1, 0.1, 0.1, 0.01, 1e-3], rtol=8 * EPS)
    np.testing.assert_allclose(values(optim.constant(0.3), [0, 7]), 0.3, rtol=EPS)

  def test_is_optax(self):
    counts = np.arange(0, 130)
    for got, reference in (
      (
        optim.one_cycle(0.1, 120),
        optax.cosine_onecycle_schedule(120, 0.1, 0.3, 25.0, 1e4),
      ),
      (
        optim.warmup_cosine(0.1, 100, 10, 0.05),
        optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100, 0.005),
      ),
      (optim.cosine(0.1, 100), optax.cosine_decay_schedule(0.1, 100)),
    ):
      expected = values(reference, counts)
      # Values up to .1; cos is good to a few eps of 1.
      np.testing.assert_allclose(values(got, counts), expected, atol=0.1 * 8 * EPS)

  def test_no_value_is_negative(self):
    counts = np.arange(-3, 1200)
    for s in (
      optim.one_cycle(1.0, 1000),
      optim.cosine(1.0, 1000),
      optim.warmup_cosine(1.0, 1000, 1000),
      optim.one_cycle(1.0, 1000, pct_start=0.0),
      optim.one_cycle(1.0, 1000, pct_start=1.0),
    ):
      got = values(s, counts)
      self.assertTrue(np.isfinite(got).all())
      self.assertGreaterEqual(got.min(), 0)
      self.assertLessEqual(got.max(), 1)

  def test_everything_may_be_traced(self):
    peaks, parts = jnp.array([0.1, 0.2]), jnp.array([0.25, 0.5])
    for make in (
      lambda p, f: optim.one_cycle(p, 100, f),
      lambda p, f: optim.warmup_cosine(p, 100, 10, f),
    ):
      swept = jax.vmap(lambda p, f, make=make: make(p, f)(40))(peaks, parts)
      single = np.array([make(float(p), float(f))(40) for p, f in zip(peaks, parts)])
      np.testing.assert_allclose(swept, single, rtol=8 * EPS)

  @parameterized.parameters(
    (lambda: optim.one_cycle(0.1, 0), 'num_steps=0 .* at least 1'),
    (lambda: optim.one_cycle(0.1, 9, 1.5), r'pct_start=1.5 .* in \[0, 1\]'),
    (lambda: optim.warmup_cosine(0.1, 9, 10), r'warmup_steps=10 .* in \[0, 9\]'),
    (lambda: optim.step_decay(0.1, 0), 'every_steps=0 .* at least 1'),
    (lambda: optim.adam(-1.0), 'learning_rate=-1.0 .* at least 0'),
    (lambda: optim.sgd(0.1, nesterov=True), 'momentum'),
    (lambda: optim.clip(optim.sgd(0.1), norm=0.0), 'clip_norm=0.0 .* above 0'),
    (lambda: optim.clip(optim.sgd(0.1), value=-1.0), 'clip_value=-1.0 .* above 0'),
  )
  def test_impossible_numbers(self, make, message):
    with self.assertRaisesRegex(ConfigError, message):
      make()


class OptimiserTest(parameterized.TestCase):
  def test_decay_spares_biases(self):
    # Without gradients a decayed leaf shrinks by lr * decay a step, others stay.
    before = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2), 'scale': jnp.ones(())}
    zero = jax.tree.map(jnp.zeros_like, before)
    for tx in (optim.adamw(0.5, 0.1), optim.sgd(0.5, weight_decay=0.1)):
      updates, _ = tx.update(zero, tx.init(before), before)
      after = optax.apply_updates(before, updates)
      np.testing.assert_allclose(after['kernel'], 0.95, rtol=2 * EPS)
      np.testing.assert_array_equal(after['bias'], 1)
      np.testing.assert_array_equal(after['scale'], 1)

  def test_adamw_decays_by_a_hundredth_unless_told(self):
    kernel = {'kernel': jnp.ones((2, 2))}
    tx = optim.adamw(0.5)
    moves, _ = tx.update({'kernel': jnp.zeros((2, 2))}, tx.init(kernel), kernel)
    np.testing.assert_allclose(moves['kernel'], -0.005, rtol=2 * EPS)

  @parameterized.product(momentum=(None, 0.9), nesterov=(False, True))
  def test_sgd_by_hand(self, momentum, nesterov):
    if nesterov and momentum is None:
      return
    tx, w = optim.sgd(0.1, momentum, nesterov), jnp.zeros(1)
    state = tx.init(w)
    for g in (1.0, 2.0):
      updates, state = tx.update(jnp.array([g]), state, w)
      w = optax.apply_updates(w, updates)
    # v: 1, then .9 + 2 = 2.9. Nesterov: steps 1 + .9 and 2 + .9 * 2.9.
    steps = {None: 3.0, 0.9: 1.9 + 4.61 if nesterov else 1 + 2.9}[momentum]
    np.testing.assert_allclose(w, [-0.1 * steps], rtol=8 * EPS)

  @parameterized.parameters('adam', 'adamw', 'sgd', 'nesterov')
  def test_is_torch(self, name):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    start = params()
    leaves, treedef = jax.tree.flatten(start)
    theirs = [torch.tensor(np.array(x), requires_grad=True) for x in leaves]
    everything = lambda tree: jax.tree.map(lambda _: True, tree)
    tx, reference = {
      'adam': (optim.adam(0.01), torch.optim.Adam(theirs, 0.01)),
      'adamw': (
        optim.adamw(0.01, 0.1, mask=everything),
        torch.optim.AdamW(theirs, 0.01, weight_decay=0.1),
      ),
      'sgd': (
        optim.sgd(0.01, 0.9, weight_decay=0.1, mask=everything),
        torch.optim.SGD(theirs, 0.01, momentum=0.9, weight_decay=0.1),
      ),
      'nesterov': (
        optim.sgd(0.01, 0.9, True),
        torch.optim.SGD(theirs, 0.01, momentum=0.9, nesterov=True),
      ),
    }[name]
    steps = 20
    ours, _ = run(tx, start, steps)
    for i in range(steps):
      for x, g in zip(theirs, jax.tree.leaves(grads_at(start, i))):
        x.grad = torch.tensor(np.array(g))
      reference.step()
    for x, y in zip(jax.tree.leaves(ours), theirs):
      # Numbers up to 3, some 8 roundings a step of updates up to .3.
      np.testing.assert_allclose(x, y.detach().numpy(), atol=steps * 8 * EPS)

  def test_sweep_in_one_program(self):
    """A traced learning rate, decay and clip equal single runs."""

    def final(lr, decay, norm):
      tx = optim.adamw(optim.one_cycle(lr, 10), decay)
      return run(optim.clip(tx, norm=norm, value=norm), params(), 3)[0]

    grid = [(0.1, 0.0, 0.5), (0.01, 0.1, 5.0)]
    swept = jax.vmap(final)(*(jnp.array(x) for x in zip(*grid)))
    for i, one in enumerate(grid):
      # Adam divides by the root of v: relative error of a few dozen eps.
      jax.tree.map(
        lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=64 * EPS),
        swept,
        final(*one),
      )


@pytest.mark.usefixtures('optimised')  # Optimised, XLA moves factors about.
class ClipTest(parameterized.TestCase):
  def clipped(self, grads: Any, **bounds) -> Any:
    tx = optim.clip(optax.identity(), **bounds)
    return tx.update(grads, tx.init(grads))[0]

  @parameterized.product(norm=(None, 0.1, 1.0, 100.0), value=(None, 0.05, 0.5, 10.0))
  def test_bounds_hold(self, norm, value):
    grads = jax.tree.map(lambda g: 3 * g, grads_at(params(), 0))
    got = self.clipped(grads, norm=norm, value=value)
    if norm is not None:
      # The scale and each product are rounded once, the sum of 26 squares too.
      self.assertLessEqual(float(optim.global_norm(got)), norm * (1 + 32 * EPS))
    if value is not None:
      largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(got))
      self.assertLessEqual(np.float32(largest), np.float32(value))

  def test_by_hand(self):
    grads = {'a': jnp.array([3.0, 0.0]), 'b': jnp.array([[4.0]])}
    got = self.clipped(grads, norm=1.0)
    np.testing.assert_allclose(got['a'], [0.6, 0], rtol=2 * EPS)
    np.testing.assert_allclose(got['b'], [[0.8]], rtol=2 * EPS)
    # By value first. By norm first, it would be [30, 4] / 30.3 = [.99, .13].
    got = self.clipped({'a': jnp.array([30.0, 4.0])}, norm=1.0, value=3.0)
    np.testing.assert_allclose(got['a'], np.array([3, 3]) / np.sqrt(18), rtol=4 * EPS)

  @parameterized.parameters(
    ([1e20, 1e20], 1.0, [0.5**0.5] * 2),
    ([1e30, -2e30], 1.0, [0.2**0.5, -(0.8**0.5)]),
    ([3e38, 3e38], 10.0, [50**0.5] * 2),  # The norm itself is no float32.
    ([1e-30, 1e-30], 1e-31, [0.5**0.5 * 1e-31] * 2),
  )
  def test_of_any_finite_size(self, grads, norm, right):
    """Exploded gradients, whose squares overflow float32, still say where to go."""
    apart = {'a': jnp.array(grads[:1]), 'b': jnp.array(grads[1:])}
    for run in (self.clipped, jax.jit(self.clipped, static_argnames='norm')):
      got = run(apart, norm=norm)
      np.testing.assert_allclose([got['a'][0], got['b'][0]], right, rtol=8 * EPS)

  def test_values_are_cut_on_both_sides(self):
    tx = optim.clip(optim.sgd(1.0), value=0.5)
    grads = {'bias': jnp.array([-2.0, -0.25, 0.25, 3.0])}
    moves, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_array_equal(moves['bias'], [0.5, 0.25, -0.25, -0.5])

  def test_norm_of_numbers_whose_squares_are_no_float32(self):
    for size in (1e-30, 1e30):
      tree = {'a': jnp.full(1, size), 'b': jnp.full((1, 1), size)}
      for norm in (optim.global_norm, jax.jit(optim.global_norm)):
        np.testing.assert_allclose(norm(tree), 2**0.5 * size, rtol=4 * EPS)

  def test_norm_of_zeros_also_where_they_are_constants_of_a_program(self):
    norm = lambda: optim.global_norm({'a': jnp.zeros(5)})
    self.assertEqual(float(norm()), 0.0)
    self.assertEqual(float(jax.jit(norm)()), 0.0)

  def test_small_gradients_keep_their_bits(self):
    grads = grads_at(params(), 0)
    jax.tree.map(np.testing.assert_array_equal, self.clipped(grads, norm=1e3), grads)
    zero = jax.tree.map(jnp.zeros_like, grads)
    jax.tree.map(np.testing.assert_array_equal, self.clipped(zero, norm=1e-3), zero)

  def test_nan_stays(self):
    got = self.clipped({'a': jnp.array([jnp.nan, 1.0])}, norm=1.0, value=1.0)
    self.assertTrue(np.isnan(got['a'][0]))

  def test_norm_of_narrow_gradients_is_float32(self):
    # 1000 entries of 100: the squares overflow float16.
    grads = {'a': jnp.full(1000, 100.0, jnp.float16)}
    got = self.clipped(grads, norm=1.0)['a']
    self.assertEqual(got.dtype, jnp.float16)
    np.testing.assert_allclose(np.linalg.norm(got.astype(np.float32)), 1, rtol=1e-3)

  def test_off_is_the_optimiser_itself(self):
    tx = optim.adam(0.1)
    self.assertIs(optim.clip(tx), tx)


class FreezeTest(parameterized.TestCase):
  def test_frozen_leaves_keep_bytes_and_have_no_moments(self):
    before = params()
    tx = optim.freeze(optim.adamw(0.1, 0.1), optim.by_path('body/.*', 'head/bias'))
    after, state = run(tx, before, 3)
    # Not jitted too: XLA may drop an addition of 0, which would turn -0.0 into 0.0.
    updates, _ = tx.update(grads_at(before, 0), tx.init(before), before)
    eager = optax.apply_updates(before, updates)
    for path in (('body', 'kernel'), ('body', 'bias'), ('head', 'bias')):
      old, *new = [np.array(t[path[0]][path[1]]) for t in (before, after, eager)]
      self.assertEqual([x.tobytes() for x in new], [old.tobytes()] * 2, path)
    self.assertFalse(np.array_equal(before['head']['kernel'], after['head']['kernel']))
    shapes = [x.shape for x in jax.tree.leaves(state) if x.ndim]
    self.assertEqual(shapes, [(4, 2), (4, 2)])  # mu and nu of head/kernel alone.

  def test_what_is_trained_is_trained_as_alone(self):
    before = params()
    tx = optim.freeze(optim.clip(optim.adam(0.1), norm=0.5), optim.by_path('body/.*'))
    after, _ = run(tx, before, 1)
    alone = optim.clip(optim.adam(0.1), norm=0.5)
    head = grads_at(before, 0)['head']
    updates, _ = alone.update(head, alone.init(before['head']), before['head'])
    expected = optax.apply_updates(before['head'], updates)
    # The clip inside saw the head's gradients only.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=8 * EPS),
      after['head'],
      expected,
    )

  def test_tree_of_bools(self):
    before = params()
    mask = jax.tree.map(lambda _: True, before)
    mask['head'] = {'kernel': False, 'bias': False}
    after, _ = run(optim.freeze(optim.sgd(0.1), mask), before, 1)
    np.testing.assert_array_equal(after['body']['kernel'], before['body']['kernel'])
    self.assertFalse(np.array_equal(after['head']['bias'], before['head']['bias']))

  def test_pattern_without_a_match(self):
    tx = optim.freeze(optim.sgd(0.1), optim.by_path('bodi/.*'))
    with self.assertRaisesRegex(ConfigError, "'bodi/.*' .* 'body/bias'"):
      tx.init(params())


class NarrowTest(parameterized.TestCase):
  """Parameters of 16 bits: what a step adds is not lost."""

  def after(self, tx, p, grads_of, steps):
    def step(i, both):
      p, state = both
      moves, state = tx.update(grads_of(i), state, p)
      return optax.apply_updates(p, moves), state

    return jax.jit(lambda p: jax.lax.fori_loop(0, steps, step, (p, tx.init(p))))(p)

  @parameterized.parameters('bfloat16', 'float16')
  def test_small_steps_add_up(self, dtype):
    # 1000 steps of 1e-4 from 1, where bfloat16 has a spacing of 0.004 below 1.
    p, state = self.after(
      optim.sgd(1e-4), jnp.ones((), dtype), lambda _: jnp.ones((), dtype), 1000
    )
    self.assertEqual(p.dtype, jnp.dtype(dtype))
    self.assertAlmostEqual(float(state.params), 0.9, delta=1e-4)
    self.assertEqual(float(p), float(jnp.asarray(0.9, dtype)))

  @parameterized.parameters(optim.adam, optim.adamw)
  def test_the_second_moment_decays(self, builder):
    # A gradient of 22.36 gives 0.001 * 500 = 0.5, then 1765 of 0: 0.5 * .999^1765.
    grads_of = lambda i: jnp.where(i == 0, 22.36, 0).astype(jnp.bfloat16)
    _, state = self.after(builder(0.0), jnp.ones((), jnp.bfloat16), grads_of, 1766)
    moments = jax.tree.leaves(
      state.inner, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState)
    )[0]
    self.assertAlmostEqual(float(moments.nu), 0.0856, delta=2e-4)

  def test_momentum_keeps_what_is_small(self):
    # v = 0.999 v + 1; in bfloat16 0.999 is 1, and 256 + 1 is 256.
    _, state = self.after(
      optim.sgd(0.0, momentum=0.999),
      jnp.ones((), jnp.bfloat16),
      lambda _: jnp.ones((), jnp.bfloat16),
      5000,
    )
    (trace,) = jax.tree.leaves(state.inner)
    self.assertAlmostEqual(float(trace), 993.28, delta=0.1)  # 1000 (1 - .999^5000).

  def test_wide_parameters_have_the_state_of_before(self):
    tree = params()
    for tx, plain in (
      (optim.adam(0.1), optax.adam(0.1)),
      (optim.in_float32(optax.sgd(0.1, 0.9)), optax.sgd(0.1, 0.9)),
    ):
      self.assertEqual(
        jax.tree.structure(tx.init(tree)), jax.tree.structure(plain.init(tree))
      )
      same = jax.tree.map(
        lambda a, b: (a == b).all(), run(tx, tree, 3), run(plain, tree, 3)
      )
      self.assertTrue(all(map(bool, jax.tree.leaves(same))))

  def test_what_does_not_move_keeps_every_byte(self):
    params = {'bias': jnp.array([-0.0, 0.0, 1.0], jnp.bfloat16)}
    tx = optim.sgd(1e-4)
    moves, _ = tx.update({'bias': jnp.array([0, 0, 1.0])}, tx.init(params), params)
    after = optax.apply_updates(params, moves)
    bits = lambda tree: np.asarray(tree['bias']).view(np.uint16)
    np.testing.assert_array_equal(bits(after), bits(params))

  def test_what_else_changes_a_parameter_is_taken(self):
    tx = optim.clip(optim.sgd(0.25), norm=1.0)
    p = {'w': jnp.zeros((), jnp.bfloat16), 'b': jnp.zeros(())}
    state = tx.init(p)
    self.assertIsNone(state.params['b'])  # Wide itself: no copy.
    warm = {'w': jnp.array(3.0, jnp.bfloat16), 'b': jnp.array(3.0)}
    moves, state = tx.update(
      {'w': jnp.ones((), jnp.bfloat16), 'b': 0.0 * p['b']}, state, warm
    )
    got = optax.apply_updates(warm, moves)
    self.assertEqual((float(got['w']), float(state.params['w'])), (2.75, 2.75))
    self.assertEqual(float(got['b']), 3.0)

  def test_frozen_narrow_parameters_keep_every_byte(self):
    tx = optim.freeze(optim.adamw(0.1), optim.by_path('body/.*'))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params())
    tree, _ = run(tx, narrow, 2)
    raw = lambda t: [np.asarray(x).tobytes() for x in jax.tree.leaves(t)]
    self.assertEqual(raw(tree['body']), raw(narrow['body']))
    self.assertNotEqual(raw(tree['head']), raw(narrow['head']))


if __name__ == '__main__':
  absltest.main()
