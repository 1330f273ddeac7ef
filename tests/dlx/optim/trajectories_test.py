"""20 steps of every optimiser with other options: NumPy in float64, torch; clipping."""

import itertools
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim

STEPS = 20
EPS = float(np.finfo(np.float64).eps)
SHAPES = {'kernel': (5, 3), 'square': (4, 4), 'bias': (3,), 'scale': ()}
RNG = np.random.default_rng(0)
START = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
MIDDLE = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}


def slope(w, middle, sin):
  """Gradient of a loss with several minima: what a step does changes all later ones."""
  return 0.3 * (w - middle) + sin(3 * w)


def ours(tx) -> dict[str, np.ndarray]:
  """Parameters after each step, in one program, in float64."""

  def step(carry, _):
    params, state = carry
    grads = jax.tree.map(lambda w, m: slope(w, m, jnp.sin), params, MIDDLE)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return (params, state), params

  with jax.enable_x64(True):
    run = lambda p: jax.lax.scan(step, (p, tx.init(p)), length=STEPS)[1]
    return jax.device_get(jax.jit(run)(jax.tree.map(jnp.asarray, START)))


def by_formula(one: Callable, o: dict[str, Any]) -> dict[str, np.ndarray]:
  """The same by `one(w, g, t, slots, decay, **options)`; slots begin at 0."""
  found = {}
  for name, w in START.items():
    kept, seen = dict.fromkeys('mvab', np.zeros_like(w)), []
    options = dict(o)
    decay = options.pop('weight_decay', 0.0) * (w.ndim > 1)
    for t in range(1, STEPS + 1):
      w = one(w, slope(w, MIDDLE[name], np.sin), t, kept, decay, **options)
      seen.append(w)
    found[name] = np.stack(seen)
  return found


def sgd(w, g, t, kept, decay, rate, momentum=0.0, nesterov=False):
  g = g + decay * w
  kept['v'] = momentum * kept['v'] + g
  return w - rate * (g + momentum * kept['v'] if nesterov else kept['v'])


def rmsprop(
  w, g, t, kept, decay, rate, decay_of=0.99, eps=1e-8, momentum=0.0, centered=False
):
  g = g + decay * w
  kept['v'] = decay_of * kept['v'] + (1 - decay_of) * g**2
  kept['a'] = decay_of * kept['a'] + (1 - decay_of) * g
  variance = kept['v'] - kept['a'] ** 2 if centered else kept['v']
  kept['b'] = momentum * kept['b'] + rate * g / (np.sqrt(variance) + eps)
  return w - kept['b']


def adagrad(w, g, t, kept, decay, rate, initial=0.0, eps=1e-10):
  kept['v'] = kept['v'] + g**2
  return w - rate * g / np.sqrt(initial + kept['v'] + eps)


def moments(g, t, kept, b1, b2):
  kept['m'] = b1 * kept['m'] + (1 - b1) * g
  kept['v'] = b2 * kept['v'] + (1 - b2) * g**2
  return kept['m'] / (1 - b1**t), np.sqrt(kept['v'] / (1 - b2**t))


def adam(w, g, t, kept, decay, rate, b1=0.9, b2=0.999, eps=1e-8):
  mean, root = moments(g, t, kept, b1, b2)
  return w - rate * (mean / (root + eps) + decay * w)


def lamb(w, g, t, kept, decay, rate, b1=0.9, b2=0.999, eps=1e-6):
  mean, root = moments(g, t, kept, b1, b2)
  move = mean / (root + eps) + decay * w
  return w - rate * np.linalg.norm(w) / np.linalg.norm(move) * move


def lion(w, g, t, kept, decay, rate, b1=0.9, b2=0.99):
  move = np.sign(b1 * kept['m'] + (1 - b1) * g) + decay * w
  kept['m'] = b2 * kept['m'] + (1 - b2) * g
  return w - rate * move


def muon(w, g, t, kept, decay, rate, momentum=0.95, nesterov=True, adam_share=0.1):
  if w.ndim != 2:
    return adam(w, g, t, kept, 0.0, rate * adam_share)
  kept['m'] = momentum * kept['m'] + (1 - momentum) * g
  x = momentum * kept['m'] / (1 - momentum ** (t + 1)) + (1 - momentum) * g / (
    1 - momentum**t
  )  # The next mean, were this gradient to come again.
  x = x if nesterov else kept['m'] / (1 - momentum**t)
  x = x / (np.linalg.norm(x) + 1e-8)
  for _ in range(5):
    square = x @ x.T
    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
  x = x * max(1, w.shape[1] / w.shape[0]) ** 0.5
  return w - rate * (x + decay * w)


class Trajectory(NamedTuple):
  """An optimiser, its formula, and the options of each run; `rate` is the first."""

  builder: Callable
  formula: Callable
  options: tuple[dict[str, Any], ...]


def words(x):
  return getattr(x, '__name__', str(x))


def product(**values):
  return tuple(dict(zip(values, row)) for row in itertools.product(*values.values()))


TRAJECTORIES = {
  'sgd': Trajectory(
    optim.sgd,
    sgd,
    product(momentum=(0.0, 0.5, 0.9), nesterov=(False, True), weight_decay=(0.0, 0.2)),
  ),
  'rmsprop': Trajectory(
    optim.rmsprop,
    rmsprop,
    product(
      decay_of=(0.9,), eps=(1e-8, 0.1), momentum=(0.0, 0.9), centered=(False, True)
    )
    + ({'decay_of': 0.99, 'weight_decay': 0.2},),
  ),
  'adagrad': Trajectory(
    optim.adagrad, adagrad, product(initial=(0.0, 0.1), eps=(1e-10, 0.01))
  ),
  'adam': Trajectory(
    optim.adam, adam, product(b1=(0.5, 0.9), b2=(0.9, 0.999), eps=(1e-8, 0.1))
  ),
  'adamw': Trajectory(
    optim.adamw,
    adam,
    product(b1=(0.5,), b2=(0.9,), eps=(0.1,), weight_decay=(0.0, 0.2)),
  ),
  'lamb': Trajectory(
    optim.lamb,
    lamb,
    product(b1=(0.5, 0.9), b2=(0.99,), eps=(1e-6, 0.1), weight_decay=(0.0, 0.2)),
  ),
  'lion': Trajectory(
    optim.lion, lion, product(b1=(0.5, 0.9), b2=(0.9, 0.99), weight_decay=(0.0, 0.2))
  ),
  'muon': Trajectory(
    optim.muon,
    muon,
    product(momentum=(0.5, 0.95), nesterov=(False, True))
    + ({'adam_share': 0.5, 'weight_decay': 0.2},),
  ),
}


@pytest.mark.parametrize(
  ('name', 'options'),
  [(name, o) for name, t in TRAJECTORIES.items() for o in t.options],
  ids=words,
)
def test_is_its_formula(name, options):
  builder, formula, _ = TRAJECTORIES[name]
  given = {{'decay_of': 'decay'}.get(k, k): v for k, v in options.items()}
  given.setdefault('weight_decay', 0.0)
  if name in ('adam', 'adagrad'):
    del given['weight_decay']
  found = ours(builder(0.05, **given))
  wanted = by_formula(formula, {'rate': 0.05, **options})
  for leaf, seen in wanted.items():
    # Errors grow: by up to 1 + 3.3 * 0.05 a step, some hundred times in all where a
    # step is divided by a root that is near 0.
    np.testing.assert_allclose(found[leaf], seen, rtol=0, atol=STEPS * 4096 * EPS)


def of_torch(torch, name, options, norm=None, value=None, scheduler=None):
  """Parameters after each step of torch's optimiser, in float64; kernels decay."""
  weights = {k: torch.tensor(w, requires_grad=True) for k, w in START.items()}
  decay = options.pop('weight_decay', 0.0)
  groups = [
    {'params': [w], 'weight_decay': decay * (w.ndim > 1)} for w in weights.values()
  ]
  tx = getattr(torch.optim, name)(groups, lr=0.05, **options)
  falls = None if scheduler is None else scheduler(torch.optim.lr_scheduler, tx)
  clip, seen = torch.nn.utils, {k: [] for k in weights}
  for _ in range(STEPS):
    tx.zero_grad()
    for k, w in weights.items():
      away = w - torch.tensor(MIDDLE[k])
      (0.15 * away**2 - torch.cos(3 * w) / 3).sum().backward()
    if value is not None:
      clip.clip_grad_value_(list(weights.values()), value)
    if norm is not None:
      clip.clip_grad_norm_(list(weights.values()), norm)
    tx.step()
    if falls is not None:
      falls.step()
    for k, w in weights.items():
      seen[k].append(w.detach().numpy().copy())
  return {k: np.stack(x) for k, x in seen.items()}


HALF_COSINE = (
  optim.cosine(0.05, STEPS, 0.1),
  lambda of, tx: of.CosineAnnealingLR(tx, STEPS, eta_min=0.005),
)
TORCH = [
  *(
    (optim.sgd, 'SGD', o)
    for o in product(
      momentum=(0.0, 0.9), nesterov=(False, True), weight_decay=(0.0, 0.2)
    )
    if o['momentum'] or not o['nesterov']
  ),
  *(
    (optim.rmsprop, 'RMSprop', o)
    for o in product(
      alpha=(0.9,), eps=(0.1,), momentum=(0.0, 0.9), centered=(False, True)
    )
  ),
  (optim.rmsprop, 'RMSprop', {'alpha': 0.99, 'weight_decay': 0.2}),
  (optim.adagrad, 'Adagrad', {'initial_accumulator_value': 0.1, 'eps': 0.0}),
  *(
    (optim.adam, 'Adam', o)
    for o in product(betas=((0.5, 0.9), (0.9, 0.999)), eps=(1e-8, 0.1))
  ),
  *(
    (optim.adamw, 'AdamW', o)
    for o in product(
      betas=((0.5, 0.9),), eps=(1e-8, 0.1), weight_decay=(0.0, 0.2)
    )
  ),
]  # fmt: skip
NAMES = {'alpha': 'decay', 'initial_accumulator_value': 'initial'}


def in_our_words(options):
  given = {NAMES.get(k, k): v for k, v in options.items()}
  if 'betas' in given:
    given['b1'], given['b2'] = given.pop('betas')
  return given


@pytest.mark.parametrize(('builder', 'theirs', 'options'), TORCH, ids=words)
def test_is_torch(builder, theirs, options):
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  found = ours(builder(0.05, **in_our_words(options)))
  wanted = of_torch(torch, theirs, dict(options))
  for leaf, seen in wanted.items():
    np.testing.assert_allclose(found[leaf], seen, rtol=0, atol=STEPS * 4096 * EPS)


@pytest.mark.parametrize(
  'bounds', [{'norm': 0.3}, {'norm': 50.0}, {'value': 0.2}, {'norm': 0.5, 'value': 0.3}]
)
def test_clipping_and_a_schedule_are_torch_s(bounds):
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  schedule, scheduler = HALF_COSINE
  found = ours(optim.clip(optim.sgd(schedule, 0.9), **bounds))
  wanted = of_torch(torch, 'SGD', {'momentum': 0.9}, scheduler=scheduler, **bounds)
  # torch adds 1e-6 to the norm that it divides by; schedules are in float32.
  bound = 1e-5 if 'norm' in bounds else 1e-6
  for leaf, seen in wanted.items():
    np.testing.assert_allclose(found[leaf], seen, rtol=0, atol=bound)


@pytest.mark.parametrize('norm', [1e-3, 1.0, 30.0])
@pytest.mark.parametrize('size', [1e-12, 1.0, 1e12])
def test_clipping_by_norm_is_that_of_optax(size, norm):
  grads = jax.tree.map(lambda x: jnp.float32(size * x), START)
  both = []
  for tx in (optim.clip(optax.identity(), norm=norm), optax.clip_by_global_norm(norm)):
    both.append(jax.jit(lambda g, tx=tx: tx.update(g, tx.init(g))[0])(grads))
  # A sum of 35 squares, a root and two products in float32.
  near = lambda x, y: np.testing.assert_allclose(x, y, rtol=64 * 2.0**-23)
  jax.tree.map(near, *both)
