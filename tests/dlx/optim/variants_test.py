"""Optimisers besides SGD and Adam: formulas in NumPy, then torch, over 20 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.errors import ConfigError
from dlx.optim import schedules

EPS = float(np.finfo(np.float32).eps)
STEPS = 20
SHAPES = {'kernel': (5, 3), 'bias': (3,)}


def numbers(seed):
  rng = np.random.default_rng(seed)
  return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


GRADS = [numbers(1 + i) for i in range(STEPS)]


def everything(params):
  return jax.tree.map(lambda _: True, params)


def trained(tx, start=None, grads=GRADS):
  """Parameters after the steps, in one program; the state after them."""
  wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
  start = wide(numbers(0) if start is None else start)
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *map(wide, grads))

  def step(carry, g):
    params, state = carry
    updates, state = tx.update(g, state, params)
    return (optax.apply_updates(params, updates), state), None

  run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), stacked)[0])
  return run(start)


def by_formula(one, **slots):
  """NumPy in float64: `one(w, g, t, slots)` -> new w; t counts from 1."""
  found = {}
  for name, w in numbers(0).items():
    kept = {slot: np.zeros_like(w) for slot in slots}
    for t, g in enumerate(GRADS, 1):
      w = one(w, g[name], t, kept, name)
    found[name] = w
  return found


def rms(w, g, t, kept, name):
  kept['v'] = 0.99 * kept['v'] + 0.01 * g**2
  return w - 0.01 * g / (np.sqrt(kept['v']) + 1e-8)


def ada(w, g, t, kept, name):
  kept['v'] = kept['v'] + g**2
  return w - 0.01 * g / np.sqrt(kept['v'] + 1e-10)


def signs(w, g, t, kept, name):
  decay = 0.1 if name == 'kernel' else 0.0
  new = w - 0.01 * (np.sign(0.9 * kept['m'] + 0.1 * g) + decay * w)
  kept['m'] = 0.99 * kept['m'] + 0.01 * g
  return new


def layerwise(w, g, t, kept, name):
  kept['m'] = 0.9 * kept['m'] + 0.1 * g
  kept['v'] = 0.999 * kept['v'] + 0.001 * g**2
  move = kept['m'] / (1 - 0.9**t) / (np.sqrt(kept['v'] / (1 - 0.999**t)) + 1e-6)
  move = move + (0.1 * w if name == 'kernel' else 0)
  return w - 0.01 * np.linalg.norm(w) / np.linalg.norm(move) * move


@pytest.mark.parametrize(
  ('tx', 'formula', 'slots'),
  [
    (optim.rmsprop(0.01), rms, 'v'),
    (optim.adagrad(0.01), ada, 'v'),
    (optim.lion(0.01, 0.1), signs, 'm'),
    (optim.lamb(0.01, 0.1), layerwise, 'mv'),
  ],
  ids=['rmsprop', 'adagrad', 'lion', 'lamb'],
)
def test_is_its_formula(tx, formula, slots):
  wanted = by_formula(formula, **dict.fromkeys(slots))
  # Numbers up to 3, some 10 roundings a step of updates up to 0.1.
  for name, x in trained(tx)[0].items():
    np.testing.assert_allclose(x, wanted[name], atol=STEPS * 8 * EPS)


@pytest.mark.parametrize(
  ('ours', 'theirs', 'options'),
  [
    (optim.rmsprop(0.01), 'RMSprop', {}),
    (
      optim.rmsprop(0.01, 0.9, centered=True, momentum=0.9),
      'RMSprop',
      {'alpha': 0.9, 'centered': True, 'momentum': 0.9},
    ),
    (
      optim.rmsprop(0.01, weight_decay=0.1, mask=everything),
      'RMSprop',
      {'weight_decay': 0.1},
    ),
    (optim.adagrad(0.01), 'Adagrad', {}),
    (optim.sgd(0.01), 'SGD', {}),
    (optim.named_optimizer('momentum', 0.01), 'SGD', {'momentum': 0.9}),
    (
      optim.named_optimizer('nesterov', 0.01),
      'SGD',
      {'momentum': 0.9, 'nesterov': True},
    ),
    (optim.adam(0.01), 'Adam', {}),
    (optim.adamw(0.01, 0.1, mask=everything), 'AdamW', {'weight_decay': 0.1}),
  ],
  ids=lambda x: x if isinstance(x, str) else None,
)
def test_is_torch(ours, theirs, options):
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  with_torch(torch, getattr(torch.optim, theirs), ours, 0.01, options, 8 * EPS)


def with_torch(torch, builder, ours, rate, options, tolerance, leave_out=()):
  start = {k: v for k, v in numbers(0).items() if k not in leave_out}
  weights = {k: torch.tensor(v, dtype=torch.float32) for k, v in start.items()}
  reference = builder(list(weights.values()), lr=rate, **options)
  grads = [{k: g[k] for k in start} for g in GRADS]
  for g in grads:
    for name, w in weights.items():
      w.grad = torch.tensor(g[name], dtype=torch.float32)
    reference.step()
  for name, x in trained(ours, start, grads)[0].items():
    np.testing.assert_allclose(x, weights[name].numpy(), atol=STEPS * tolerance)


def test_muon_is_torch():
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  # torch keeps rows as outputs and multiplies in bfloat16, to 2^-8 of a step whose
  # entries are below 1; the scale of [5, 3] is 1 here and sqrt(5 / 3) there.
  rate = 0.01
  with_torch(
    torch,
    torch.optim.Muon,
    optim.muon(rate * (5 / 3) ** 0.5),
    rate,
    {'weight_decay': 0.0, 'adjust_lr_fn': 'original'},
    rate * 2**-5,
    leave_out=('bias',),
  )


def test_a_step_of_muon_is_nearly_orthogonal_whatever_the_gradient():
  tx, lr = optim.muon(0.1, momentum=0.0, nesterov=False), 0.1
  for size in (1e-3, 1e3):
    grads = jax.tree.map(lambda g, size=size: size * jnp.asarray(g), GRADS[0])
    updates, _ = tx.update(grads, tx.init(grads), grads)
    values = np.linalg.svd(np.asarray(updates['kernel']) / lr, compute_uv=False)
    assert (values > 0.5).all() and (values < 1.5).all(), values
    # The bias by Adam, at a tenth of the rate: its first step is lr / 10.
    np.testing.assert_allclose(np.abs(updates['bias']), lr / 10, rtol=1e-3)


def test_muon_decays_matrices_alone_and_takes_a_mask():
  zero = jax.tree.map(np.zeros_like, numbers(0))
  after, _ = trained(optim.muon(0.5, weight_decay=0.1), grads=[zero])
  np.testing.assert_allclose(after['kernel'], 0.95 * numbers(0)['kernel'], rtol=1e-6)
  np.testing.assert_allclose(after['bias'], numbers(0)['bias'], rtol=1e-6)
  off = optim.muon(0.5, mask={'kernel': False, 'bias': False})
  same = optim.adam(0.05)
  for a, b in zip(jax.tree.leaves(trained(off)[0]), jax.tree.leaves(trained(same)[0])):
    np.testing.assert_allclose(a, b, rtol=1e-6)


NAMES = sorted(optim.OPTIMIZERS)


@pytest.mark.parametrize('name', NAMES)
def test_every_one_tells_its_rate_sweeps_and_refuses(name):
  rate = optim.RATES[name]
  assert rate.low <= rate.default <= rate.high
  tx = optim.named_optimizer(name)
  state = tx.init(numbers(0))
  assert float(optim.learning_rate(tx, state, state, jnp.int32(3))) == np.float32(
    rate.default
  )
  with pytest.raises(ConfigError, match='learning_rate=-1.0 .* at least 0'):
    optim.named_optimizer(name, -1.0)
  # Two rates in one program, a schedule of each, equal runs alone.
  final = lambda lr: trained(
    optim.named_optimizer(name, optim.cosine(lr, 5)), grads=GRADS[:3]
  )[0]
  swept = jax.vmap(final)(jnp.array([0.02, 0.01]))
  for a, b in zip(jax.tree.leaves(swept), jax.tree.leaves(final(0.01)), strict=True):
    np.testing.assert_allclose(a[1], b, atol=64 * EPS)


@pytest.mark.parametrize('name', NAMES)
def test_narrow_parameters_have_float32_copies(name):
  tx = optim.named_optimizer(name, 1e-4)
  narrow = {'w': jnp.ones((2, 2), jnp.bfloat16)}
  # A step of 1e-4 from 1 is lost in bfloat16, and kept in the copy.
  moves, state = tx.update(
    {'w': jnp.ones((2, 2), jnp.bfloat16)}, tx.init(narrow), narrow
  )
  after = optax.apply_updates(narrow, moves)
  assert after['w'].dtype == jnp.bfloat16
  assert (after['w'] == 1).all()
  assert (state.params['w'] < 1).all()


def test_an_unknown_name_is_one_line():
  with pytest.raises(ConfigError, match='optimizer=adm is not allowed: must be one of'):
    optim.named_optimizer('adm')
  with pytest.raises(ConfigError, match='schedule=cos is not allowed: must be one of'):
    schedules.named_schedule('cos', 0.1, 100)
