"""Eight kinds of training on tiny data: what the contract must carry unchanged."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import optax

from dlx.data.dataset import Loaded, Resident, Streamed
from dlx.experiment import Config, Eval, Experiment
from dlx.state import Mean, create
from dlx.train import steps
from dlx.train.members import vectorize
from dlx.train.plateau import Plateau

fold = jax.random.fold_in
RNG = np.random.default_rng(0)
IMAGES = {
  'x': RNG.normal(size=(50, 4, 4, 1)).astype(np.float32),
  'y': RNG.integers(0, 3, 50).astype(np.int32),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(Config):
  """Intervals that no stop at step 11 is a multiple of."""

  num_steps: int = 24
  batch_size: int = 8
  log_every_steps: int = 5
  eval_every_steps: int | None = 6
  save_every_steps: int | None = 8
  steps_per_dispatch: int = 4


class Rolling(Resident):
  """Rows step*B, step*B+1, ... of the arrays, again and again; or all of them."""

  def __init__(self, arrays, batch_size=None, passes=False):
    self.arrays, self.passes = arrays, passes
    self.n = len(next(iter(arrays.values())))
    self.batch_size = batch_size or self.n
    self.placement = {} if batch_size else {name: P() for name in arrays}
    self.size = self.n
    shapes = {
      name: jax.ShapeDtypeStruct((self.batch_size,) + x.shape[1:], x.dtype)
      for name, x in arrays.items()
    }
    if passes:
      shapes['weight'] = jax.ShapeDtypeStruct((self.batch_size,), np.float32)
    self.shapes = (shapes,)

  def load(self, data_dir=None):
    return Loaded(
      dict(self.arrays),
      {'name': 'rolling', 'split': 'train', 'kind': 'generated', 'size': self.n},
    )

  def array_shapes(self):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.arrays)

  def get(self, arrays, step):
    if self.batch_size == self.n and not self.passes:
      return arrays
    rows = step * self.batch_size + jnp.arange(self.batch_size)
    batch = {name: x[rows % self.n] for name, x in arrays.items()}
    if self.passes:
      batch['weight'] = (rows < self.n).astype(jnp.float32)
    return batch

  def num_batches(self, data):
    return -(-self.n // self.batch_size) if self.passes else None


class Mlp(nn.Module):
  width: int = 8
  outputs: int = 3

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Dense(self.width)(x.reshape(x.shape[0], -1)))
    return nn.Dense(self.outputs)(x)


def cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def one(x) -> Mean:
  return Mean(x, jnp.ones(()))


def apply(tx, grads, opt_state, params):
  updates, opt_state = tx.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), opt_state


def two_players(config) -> Experiment:
  """A GAN: two optimisers, k critic steps scanned inside a step, EMA generator."""
  g, d, k = Mlp(8, 16), Mlp(8, 1), 2
  tx_g, tx_d = optax.adam(1e-3), optax.adam(2e-3)

  def init(key):
    params = {
      'g': g.init(fold(key, 0), jnp.zeros((1, 4)))['params'],
      'd': d.init(fold(key, 1), jnp.zeros((1, 16)))['params'],
    }
    opt_state = {'g': tx_g.init(params['g']), 'd': tx_d.init(params['d'])}
    return create(
      params, opt_state, fold(key, 2), ema=jax.tree.map(jnp.copy, params['g'])
    )

  def critic(p, x):
    return d.apply({'params': p}, x)[:, 0]

  def train_step(s, batch):
    key, b = fold(s.rng, s.step), config.batch_size // k
    x_kBD = batch['x'].reshape(b, k, 16).swapaxes(0, 1)
    make = lambda p, key: g.apply({'params': p}, jax.random.normal(key, (b, 4)))

    def body(carry, row):
      params, opt_state = carry
      i, x = row
      fake = make(s.params['g'], fold(key, i))
      loss, grads = jax.value_and_grad(
        lambda p: (
          jax.nn.softplus(-critic(p, x)) + jax.nn.softplus(critic(p, fake))
        ).mean()
      )(params)
      return apply(tx_d, grads, opt_state, params), loss

    (p_d, o_d), d_loss = jax.lax.scan(
      body, (s.params['d'], s.opt_state['d']), (jnp.arange(k), x_kBD)
    )
    g_loss, grads = jax.value_and_grad(
      lambda p: jax.nn.softplus(-critic(p_d, make(p, fold(key, k)))).mean()
    )(s.params['g'])
    p_g, o_g = apply(tx_g, grads, s.opt_state['g'], s.params['g'])
    ema = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, s.ema, p_g)
    s = s._replace(
      step=s.step + 1,
      params={'g': p_g, 'd': p_d},
      opt_state={'g': o_g, 'd': o_d},
      ema=ema,
    )
    return s, {'d': Mean(d_loss.sum(), jnp.float32(k)), 'g': one(g_loss)}

  return Experiment(init, train_step, Rolling({'x': IMAGES['x']}, config.batch_size))


def carried_state(config) -> Experiment:
  """Truncated BPTT: the carry lives in model_state, `reset` is a leaf of the batch."""
  b, t = config.batch_size, 5
  text = np.random.default_rng(2).integers(0, 7, (b, 3 * t + 1)).astype(np.int32)
  cell, embed, out, tx = nn.GRUCell(4), nn.Embed(7, 4), nn.Dense(7), optax.sgd(0.1)

  class Text(Rolling):
    def __init__(self):
      self.arrays, self.n = {'text': text}, 3 * b
      self.shapes = (
        {
          'x': jax.ShapeDtypeStruct((b, t), np.int32),
          'y': jax.ShapeDtypeStruct((b, t), np.int32),
          'reset': jax.ShapeDtypeStruct((b,), bool),
        },
      )

    def get(self, arrays, step):
      chunk = step % 3
      at = chunk * t + jnp.arange(t)
      return {
        'x': arrays['text'][:, at],
        'y': arrays['text'][:, at + 1],
        'reset': jnp.full((b,), chunk == 0),
      }

  def init(key):
    h = jnp.zeros((b, 4))
    params = {
      'cell': cell.init(fold(key, 0), h, h)['params'],
      'embed': embed.init(fold(key, 1), jnp.zeros((1,), int))['params'],
      'out': out.init(fold(key, 2), h)['params'],
    }
    return create(params, tx.init(params), fold(key, 3), model_state={'carry': h})

  def train_step(s, batch):
    h_0 = jnp.where(batch['reset'][:, None], 0.0, s.model_state['carry'])

    def loss(p):
      x_TBD = embed.apply({'params': p['embed']}, batch['x']).swapaxes(0, 1)
      h, h_TBD = jax.lax.scan(
        lambda h, x: (cell.apply({'params': p['cell']}, h, x)[0],) * 2, h_0, x_TBD
      )
      logits = out.apply({'params': p['out']}, h_TBD)
      return cross_entropy(logits, batch['y'].T).mean(), h

    (value, h), grads = jax.value_and_grad(loss, has_aux=True)(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    s = s._replace(
      step=s.step + 1, params=params, opt_state=opt_state, model_state={'carry': h}
    )
    return s, {'loss': one(value)}

  return Experiment(
    init, train_step, Text(), placement=((r'model_state/carry', P('data')),)
  )


def full_batch_graph(config) -> Experiment:
  """The whole graph is the batch: placement P(), masks, no batch size."""
  rng, n = np.random.default_rng(3), 12
  a = (rng.random((n, n)) < 0.3).astype(np.float32)
  a = np.maximum(a, a.T) + np.eye(n, dtype=np.float32)
  d = a.sum(1) ** -0.5
  graph = {
    'a': d[:, None] * a * d,
    'x': rng.normal(size=(n, 5)).astype(np.float32),
    'y': rng.integers(0, 2, n).astype(np.int32),
    'train': (np.arange(n) < 6).astype(np.float32),
    'val': (np.arange(n) >= 6).astype(np.float32),
  }
  tx = optax.adam(0.01)
  logits = lambda p, b: b['a'] @ jax.nn.relu(b['a'] @ b['x'] @ p['w']) @ p['u']

  def init(key):
    params = {
      'w': 0.3 * jax.random.normal(fold(key, 0), (5, 4)),
      'u': 0.3 * jax.random.normal(fold(key, 1), (4, 2)),
    }
    return create(params, tx.init(params), fold(key, 2))

  def train_step(s, b):
    loss, grads = jax.value_and_grad(
      lambda p: (
        (b['train'] * cross_entropy(logits(p, b), b['y'])).sum() / b['train'].sum()
      )
    )(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    return s._replace(step=s.step + 1, params=params, opt_state=opt_state), {
      'loss': one(loss)
    }

  class Graph(Rolling):
    def num_batches(self, data):
      return 1

  def evaluate(s, b):
    right = (logits(s.params, b).argmax(-1) == b['y']).astype(jnp.float32)
    return {'accuracy': Mean((b['val'] * right).sum(), b['val'].sum())}

  data = Graph(graph)
  return Experiment(init, train_step, data, {'val': Eval(evaluate, data)})


def queue_and_teacher(config) -> Experiment:
  """MoCo: an EMA teacher, and a first-in first-out queue in model_state."""
  f, tx, b, q = Mlp(8, 4), optax.sgd(0.05), config.batch_size, 32
  unit = lambda z: z / jnp.linalg.norm(z, axis=-1, keepdims=True)

  def init(key):
    params = f.init(fold(key, 0), jnp.zeros((1, 16)))['params']
    queue = unit(jax.random.normal(fold(key, 1), (q, 4)))
    return create(
      params,
      tx.init(params),
      fold(key, 2),
      model_state={'queue': queue},
      ema=jax.tree.map(jnp.copy, params),
    )

  def train_step(s, batch):
    key = fold(s.rng, s.step)
    noise = lambda i: (
      0.1
      * jax.vmap(lambda row: jax.random.normal(fold(fold(key, i), row), (4, 4, 1)))(
        jnp.arange(b)
      )
    )
    teacher = jax.tree.map(lambda e, p: 0.99 * e + 0.01 * p, s.ema, s.params)
    k_BD = unit(f.apply({'params': teacher}, batch['x'] + noise(1)))

    def loss(p):
      q_BD = unit(f.apply({'params': p}, batch['x'] + noise(0)))
      logits = (
        jnp.concatenate(
          [(q_BD * k_BD).sum(-1, keepdims=True), q_BD @ s.model_state['queue'].T], 1
        )
        / 0.2
      )
      return cross_entropy(logits, jnp.zeros(b, int)).mean()

    value, grads = jax.value_and_grad(loss)(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    queue = jnp.concatenate([s.model_state['queue'][b:], k_BD])
    s = s._replace(
      step=s.step + 1,
      params=params,
      opt_state=opt_state,
      ema=teacher,
      model_state={'queue': queue},
    )
    return s, {'loss': one(value)}

  return Experiment(init, train_step, Rolling({'x': IMAGES['x']}, b))


def classifier(config, tx=None, **more) -> Experiment:
  """An MLP with one evaluation that has an incomplete last batch."""
  model, tx = Mlp(), tx or optax.adam(0.01)

  def init(key):
    params = model.init(fold(key, 0), jnp.zeros((1, 16)))['params']
    return create(params, tx.init(params), fold(key, 1))

  def train_step(s, b):
    loss, grads = jax.value_and_grad(
      lambda p: cross_entropy(model.apply({'params': p}, b['x']), b['y']).mean()
    )(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    return s._replace(step=s.step + 1, params=params, opt_state=opt_state), {
      'loss': one(loss)
    }

  def evaluate(s, b):
    losses = cross_entropy(model.apply({'params': s.params}, b['x']), b['y'])
    return {'loss': Mean((b['weight'] * losses).sum(), b['weight'].sum())}

  return Experiment(
    init,
    train_step,
    Rolling(IMAGES, config.batch_size),
    {'val': Eval(evaluate, Rolling(IMAGES, 16, passes=True))},
    **more,
  )


def plateau_and_stop(config) -> Experiment:
  """The rate halves on a plateau; the third plateau stops the run: in after_eval."""
  plateau = Plateau(metric='val/loss', factor=0.5, patience=1, threshold=0.0)
  base = plateau.watching(classifier(config, plateau.wrap(optax.adam(0.3))))

  def after_eval(s, metrics):
    assert base.after_eval is not None
    s = base.after_eval(s, metrics)
    return s._replace(stop=s.opt_state.lowered <= 0.5**3)

  return base._replace(after_eval=after_eval)


UNFREEZE = 13


def teacher_then_unfreeze(config) -> Experiment:
  """The first layer comes in by warm_start and is frozen until step UNFREEZE."""
  model, tx = Mlp(), optax.adam(0.01)
  base = classifier(config)

  def train_step(s, b):
    loss, grads = jax.value_and_grad(
      lambda p: cross_entropy(model.apply({'params': p}, b['x']), b['y']).mean()
    )(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    frozen = {'Dense_0': s.step < UNFREEZE, 'Dense_1': jnp.zeros((), bool)}
    keep = lambda new, old: steps.hold(frozen, new, old)
    adam, old = opt_state[0], s.opt_state[0]
    adam = adam._replace(mu=keep(adam.mu, old.mu), nu=keep(adam.nu, old.nu))
    s = s._replace(
      step=s.step + 1, params=keep(params, s.params), opt_state=(adam, *opt_state[1:])
    )
    return s, {'loss': one(loss)}

  def warm_start(s):
    teacher = model.init(jax.random.key(9), jnp.zeros((1, 16)))['params']
    s = s._replace(params={**s.params, 'Dense_0': teacher['Dense_0']})
    return s, {'path': 'teacher', 'step': 9}

  return base._replace(train_step=train_step, warm_start=warm_start)


class TwoLengths(Streamed):
  """Batches of 4 or of 8 tokens, by a host function of the step; read on the host."""

  def __init__(self, batch_size):
    self.lengths, self.batch_size, self.size = (4, 8), batch_size, 20
    self.shapes = tuple(
      {'x': jax.ShapeDtypeStruct((batch_size, n), np.int32)} for n in self.lengths
    )

  def shape_id(self, step):
    return (step // 3) % 2

  def load(self, data_dir=None):
    rng = np.random.default_rng(4)
    return Loaded(
      {n: rng.integers(1, 9, (20, n)).astype(np.int32) for n in self.lengths},
      {'name': 'lengths', 'split': 'train', 'kind': 'generated', 'size': 20},
    )

  def get(self, data, step, rows):
    at = (step * self.batch_size + np.arange(self.batch_size))[rows] % 20
    return {'x': data[self.lengths[self.shape_id(step)]][at]}


class TwoLengthsResident(Resident):
  """The same batches, gathered on the device."""

  def __init__(self, batch_size):
    self.host = TwoLengths(batch_size)
    self.shapes, self.size = self.host.shapes, 20

  def shape_id(self, step):
    return self.host.shape_id(step)

  def load(self, data_dir=None):
    loaded = self.host.load(data_dir)
    return loaded._replace(data={str(n): x for n, x in loaded.data.items()})

  def array_shapes(self):
    return {str(n): jax.ShapeDtypeStruct((20, n), np.int32) for n in self.host.lengths}

  def get(self, arrays, step, shape_id: Any = 0):
    at = (step * self.host.batch_size + jnp.arange(self.host.batch_size)) % 20
    return {'x': arrays[str(self.host.lengths[shape_id])][at]}


def two_shapes(config, streamed=True) -> Experiment:
  tx = optax.sgd(0.1)

  def init(key):
    params = {
      'embed': jax.random.normal(fold(key, 0), (9, 4)),
      'out': jax.random.normal(fold(key, 1), (4,)),
    }
    return create(params, tx.init(params), fold(key, 2))

  def train_step(s, b):
    loss, grads = jax.value_and_grad(
      lambda p: jax.nn.softplus(-(p['embed'][b['x']].mean(1) @ p['out'])).mean()
    )(s.params)
    params, opt_state = apply(tx, grads, s.opt_state, s.params)
    return s._replace(step=s.step + 1, params=params, opt_state=opt_state), {
      'loss': one(loss)
    }

  data = (TwoLengths if streamed else TwoLengthsResident)(config.batch_size)
  return Experiment(init, train_step, data)


def many_seeds(config) -> Experiment:
  return vectorize(plateau_and_stop(config), 3)


KINDS = {
  f.__name__: f
  for f in (
    two_players,
    carried_state,
    full_batch_graph,
    queue_and_teacher,
    plateau_and_stop,
    teacher_then_unfreeze,
    two_shapes,
    many_seeds,
  )
}
