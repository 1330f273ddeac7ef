"""dcgan and gan: what two players do in a step and in a sample."""

import functools
from unittest import mock
import zlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.losses import adversarial
from dlx.models import gan
from dlx.state import leaves_by_path
from dlx.tasks.image_generation import GameConfig, SampleReport
from dlx.tasks.judge import Judge
from dlx.train import steps
from experiments.generative import dcgan
from experiments.generative import gan as dense_gan
from tests.same_bytes import same_bytes

BOTH = ('conv', 'dense')
MODULES = {'conv': dcgan, 'dense': dense_gan}
WIDTHS = {
  'conv': {'generator_width': 4, 'discriminator_width': 4},
  'dense': {'generator_features': (8,), 'discriminator_features': (8,), 'dropout': 0.0},
}


def small(model='conv', judge=(), game=(), **fields):
  groups = {
    'judge': Judge.Config(**{'num_steps': 0, **dict(judge)}),
    'game': GameConfig(**dict(game)),
  }
  base = {'num_steps': 10, 'batch_size': 8, 'noise': 5}
  return MODULES[model].Config(**{**base, **groups, **WIDTHS[model], **fields})


@functools.cache
def digits():
  return dcgan.build(small('conv')).train_data.load().data


def averaged(model, params, model_state):
  """Of what an average is kept."""
  if model == 'dense':
    return params['g']
  return {'params': params['g'], 'batch_stats': model_state['g']}


def filled(path, x):
  """A leaf of a state, drawn without a program of its own: init takes a second."""
  if path == 'rng':
    return jax.random.key(1)
  moments = path.startswith('opt_state') or path.endswith('mean')
  if moments or not jnp.issubdtype(x.dtype, jnp.floating):
    return jnp.zeros(x.shape, x.dtype)
  draw = np.random.default_rng(zlib.crc32(path.encode())).normal(size=x.shape)
  around = 1 if path.endswith(('var', 'scale')) else 0
  return jnp.asarray(around + 0.2 * draw, x.dtype)


def start(model, **fields):
  built = MODULES[model].build(small(model, **fields))
  wanted = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  leaves = [filled(*item) for item in leaves_by_path(wanted).items()]
  state = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
  if state.ema != ():  # As at the start of a run: the average is the generator.
    now = averaged(model, state.params, state.model_state)
    state = state._replace(ema=jax.tree.map(jnp.copy, now))
  n = built.train_data.shapes[0]['label'].shape[0]
  return built, state, {name: jnp.asarray(x[:n]) for name, x in digits().items()}


def recorder(built, state, moves=('g', 'd')):
  """(state, batch) -> (new state, metrics, calls of `steps.update`).

  A call is (player, gradients).

  Players that are not in `moves` get their parameters back as they were.
  """
  form = lambda tree: (jax.tree.structure(tree), *map(jnp.shape, jax.tree.leaves(tree)))
  players = {form(tree): name for name, tree in state.params.items()}
  real_update, names = steps.update, []

  def run(state, batch):
    calls = []

    def update(tx, grads, opt_state, params):
      name = players[form(params)]
      names.append(name)
      calls.append(grads)
      if name not in moves:
        return params, opt_state
      return real_update(tx, grads, opt_state, params)

    with mock.patch.object(steps, 'update', update):
      new, metrics = built.train_step(state, batch)
    return new, metrics, calls

  run = jax.jit(run)

  def recorded(state, batch):
    new, metrics, calls = run(state, batch)
    return new, metrics, list(zip(names, calls, strict=True))

  return recorded


class TwoPlayersTest(parameterized.TestCase):
  @parameterized.parameters(*BOTH)
  def test_neither_step_moves_the_other_player(self, model):
    built, state, batch = start(model)
    slopes = []
    for moves, stays in (('d', 'g'), ('g', 'd')):
      new, _, calls = recorder(built, state, moves)(state, batch)
      self.assertTrue(same_bytes(new.params[stays], state.params[stays]))
      self.assertTrue(same_bytes(new.opt_state[stays], state.opt_state[stays]))
      self.assertFalse(same_bytes(new.params[moves], state.params[moves]))
      slopes.append(calls[-1][1])
    # The generator's gradient is that of the discriminator after its step.
    self.assertFalse(same_bytes(*slopes))

  def test_order_and_fresh_rows_and_noise(self):
    built, state, batch = start('conv', critic_steps=2)
    self.assertEqual(batch['label'].shape, (16,))
    recorded = recorder(built, state, moves=())
    new, metrics, calls = recorded(state, batch)
    self.assertTrue(same_bytes(new.params, state.params))
    self.assertEqual([name for name, _ in calls], ['d', 'd', 'g'])
    self.assertEqual(metrics['loss'].count, 16)
    self.assertEqual(metrics['g_loss'].count, 8)
    self.assertEqual(metrics['d_grad_norm'].count, 2)
    # Row m of every two belongs to discriminator step m, and to no other.
    for m in (0, 1):
      mine = jnp.arange(16) % 2 == m
      image = jnp.where(mine[:, None, None, None], 16 - batch['image'], batch['image'])
      other = recorded(state, {**batch, 'image': image})[2]
      for k in (0, 1):
        self.assertEqual(same_bytes(other[k][1], calls[k][1]), k != m)
    # The same images twice: only the noise differs (statistics are of the batch).
    twice = jax.tree.map(lambda x: jnp.repeat(x[::2], 2, 0), batch)
    first, second, _ = recorded(state, twice)[2]
    self.assertFalse(same_bytes(first[1], second[1]))

  def test_gradients_by_hand(self):
    # Dense players without dropout: four lines of autodiff.
    built, state, batch = start('dense', conditional=True, game={'real_label': 0.8})
    new, metrics, calls = recorder(built, state)(state, batch)
    self.assertEqual([name for name, _ in calls], ['d', 'g'])
    rng = jax.random.fold_in(state.rng, state.step)
    z = jax.random.normal(jax.random.fold_in(rng, 0), (8, 5))
    real, label = batch['image'].astype(jnp.float32) / 8 - 1, batch['label']
    g = gan.Generator(shape=(8, 8, 1), features=(8,), num_classes=10)
    d = gan.Discriminator(features=(8,), dropout=0, num_classes=10)
    make = lambda p: g.apply({'params': p}, z, label, train=False)
    logit = lambda p, x: jnp.asarray(d.apply({'params': p}, x, label, train=False))

    def d_loss(p, fake):
      return adversarial.discriminator_loss(
        'non_saturating', logit(p, real), logit(p, fake), 0.8
      ).mean()

    @jax.jit
    def by_hand(old, new):
      loss, d_grads = jax.value_and_grad(d_loss)(old['d'], make(old['g']))
      # The generator meets the discriminator that has already moved.
      g_loss, g_grads = jax.value_and_grad(
        lambda p: jax.nn.softplus(-logit(new['d'], make(p))).mean()
      )(old['g'])
      return loss, d_grads, g_loss, g_grads

    loss, d_grads, g_loss, g_grads = by_hand(state.params, new.params)
    # Sums of at most 64 products of size 1, in another order.
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    near(metrics['loss'].total / 8, loss)
    near(metrics['g_loss'].total / 8, g_loss)
    jax.tree.map(near, calls[0][1], d_grads)
    jax.tree.map(near, calls[1][1], g_grads)
    norm = jnp.sqrt(sum(jnp.square(x).sum() for x in jax.tree.leaves(g_grads)))
    near(metrics['g_grad_norm'].total, norm)

  @parameterized.parameters(*BOTH)
  def test_average_is_the_formula(self, model):
    built, state, batch = start(model, ema_decay=0.9)
    state = state._replace(step=jnp.int32(2))
    state = state._replace(ema=jax.tree.map(lambda x: x + 1, state.ema))
    new, _ = jax.jit(built.train_step)(state, batch)
    now = averaged(model, new.params, new.model_state)
    # min(0.9, 3 / 12) of the old.
    wanted = jax.tree.map(lambda e, p: 0.25 * e + 0.75 * p, state.ema, now)
    jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7),
      new.ema,
      wanted,
    )

  @parameterized.parameters(*BOTH)
  def test_samples_are_of_the_average_and_of_the_label(self, model):
    for conditional in (True, False):
      built, state, _ = start(model, conditional=conditional, ema_decay=0.9)
      grid = jax.jit(lambda s, b=built: b.figures['samples'].compute(s, s.rng, {}))
      image = grid(state)
      self.assertEqual(image.shape, (10, 10, 8, 8, 1))
      self.assertTrue(((image >= 0) & (image <= 1)).all())
      # The players themselves are not looked at.
      zeros = jax.tree.map(jnp.zeros_like, state.params)
      self.assertTrue(same_bytes(grid(state._replace(params=zeros)), image))
      # One noise, one class after the other.
      sample = jax.jit(lambda s, y, b=built: sampler(b)(s, jnp.ones((1, 5)), y))
      zero, one = (sample(state, jnp.array([k])) for k in (0, 1))
      self.assertEqual(same_bytes(zero, one), not conditional)

  @parameterized.parameters(*BOTH)
  def test_without_an_average_samples_are_of_the_generator(self, model):
    built, state, _ = start(model, ema_decay=None)
    self.assertEqual(state.ema, ())
    grid = jax.jit(lambda s: built.figures['samples'].compute(s, s.rng, {}))
    grey = grid(state._replace(params=jax.tree.map(jnp.zeros_like, state.params)))
    np.testing.assert_array_equal(grey, np.full(grey.shape, 0.5))

  def test_running_statistics_are_used_in_samples(self):
    built, state, batch = start('conv', ema_decay=0.5)
    sample = jax.jit(lambda s, z: sampler(built)(s, z, jnp.arange(len(z))))
    z = jax.random.normal(jax.random.key(3), (6, 5))
    # Each alone: 1e-6 is a few roundings of numbers near 0.5.
    np.testing.assert_allclose(sample(state, z)[:2], sample(state, z[:2]), atol=1e-6)
    stats = jax.tree.map(lambda x: x + 1, state.ema['batch_stats'])
    moved = state._replace(ema={**state.ema, 'batch_stats': stats})
    self.assertGreater(np.abs(sample(moved, z) - sample(state, z)).max(), 1e-3)
    # Training moves those of both players; the discriminator of 8 x 8 has none.
    built, state, batch = start('conv', dataset='mnist')
    batch['image'] = jax.random.randint(state.rng, (8, 28, 28, 1), 0, 256, jnp.uint8)
    old, new = state.model_state, jax.jit(built.train_step)(state, batch)[0].model_state
    self.assertFalse(same_bytes(new['g'], old['g']))
    # Those of the discriminator for real images and for samples, apart.
    means = {kind: stats['norm_1']['mean'] for kind, stats in new['d'].items()}
    self.assertFalse(same_bytes(new['d']['real'], old['d']['real']))
    self.assertGreater(np.abs(means['real'] - means['fake']).max(), 1e-3)

  def test_gradient_penalty_pulls(self):
    found = {}
    for r1 in (0.0, 100.0):
      built, state, batch = start('conv', discriminator_norm='none', r1=r1)
      _, metrics, calls = recorder(built, state)(state, batch)
      found[r1] = metrics, calls[0][1]
    self.assertNotIn('r1', found[0.0][0])
    loss, penalty = (found[100.0][0][name] for name in ('loss', 'r1'))
    # The loss that is reported is without the penalty.
    np.testing.assert_allclose(loss.total, found[0.0][0]['loss'].total, rtol=1e-6)
    self.assertGreater(penalty.total, 0)
    self.assertFalse(same_bytes(found[0.0][1], found[100.0][1]))

  @parameterized.parameters(*BOTH)
  def test_evaluations(self, model):
    built, state, _ = start(
      model, truncation=0.5, judge={'num_samples': 20, 'dense': 16}, eval_batch_size=12
    )
    self.assertEqual(set(built.evals), {'samples', 'truncated'})
    evaluation = built.evals['samples']
    self.assertEqual(evaluation.data.size, 20)
    arrays = evaluation.data.load().data

    @jax.jit
    def all_of(state):
      sums = [
        evaluation.step(state, evaluation.data.get(arrays, jnp.int32(i)))
        for i in (0, 1)
      ]
      return evaluation.summarize(jax.tree.map(lambda *x: sum(x), *sums))

    found = all_of(state)
    self.assertEqual(found['classes'].sum(), 20)
    for name in ('loss', 'confident', 'class_entropy', 'frechet', 'real_accuracy'):
      self.assertTrue(np.isfinite(found[name]), name)
    conditional = small(model).conditional
    self.assertEqual('asked_class' in found, conditional)

  @parameterized.named_parameters(
    ('critic', {'critic_steps': 0}, '--config.critic_steps=0'),
    ('dtype', {'compute_dtype': 'float16'}, '--config.compute_dtype=float16'),
    ('micro', {'micro_batches': 2}, '--config.micro_batches=2'),
    ('truncation', {'truncation': 0.0}, '--config.truncation=0.0'),
    ('noise', {'noise': 0}, '--config.noise=0'),
    ('norm', {'discriminator_norm': 'layer'}, '--config.discriminator_norm=layer'),
    ('label', {'game': {'loss': 'hinge'}}, 'GameConfig.real_label=0.9'),
    ('loss', {'game': {'loss': 'wgan'}}, 'GameConfig.loss=wgan'),
    ('samples', {'judge': {'num_samples': 0}}, 'Judge.Config.num_samples=0'),
    ('every', {'judge': {'every_steps': 0}}, 'Judge.Config.every_steps=0'),
    ('judge', {'judge': {'num_steps': -1}}, 'Judge.Config.num_steps=-1'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, f'^{message} is not'):
      small(**fields)

  @parameterized.named_parameters(
    ('dtype', {'compute_dtype': 'float16'}, 'compute_dtype=float16'),
    ('micro', {'micro_batches': 2}, 'micro_batches=2'),
    ('truncation', {'truncation': 0.0}, 'truncation=0.0'),
    ('features', {'generator_features': (8, 0)}, r'generator_features=\(8, 0\)'),
    ('dropout', {'dropout': 1.0}, 'dropout=1.0'),
    ('noise', {'noise': 0}, 'noise=0'),
  )
  def test_refused_with_dense_players(self, fields, message):
    with self.assertRaisesRegex(ConfigError, f'^--config.{message} is not'):
      small('dense', **fields)

  def test_penalty_is_refused_beside_batch_norm_alone(self):
    with self.assertRaisesRegex(ConfigError, 'r1=1.0 is not .*norm=batch'):
      small('conv', r1=1.0)
    small('conv', r1=1.0, discriminator_norm='none')


def sampler(built):
  """(state, z, label) -> images, out of the experiment's evaluation."""
  cells = [c.cell_contents for c in built.evals['samples'].step.__closure__]
  (report,) = [c for c in cells if isinstance(c, SampleReport)]
  return report.sample


if __name__ == '__main__':
  absltest.main()
