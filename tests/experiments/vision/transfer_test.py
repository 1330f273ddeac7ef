"""transfer: what is handed over, what learns and when, what keeps every byte."""

import dataclasses
import functools
from unittest import mock

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models import cnn as models
from dlx.models import headed
from dlx.run.loop import fit
from dlx.train import unfreezing
from experiments.vision import cnn, resnet, transfer
from tests.same_bytes import same_bytes


@functools.cache
def stepper(config):
  """The experiment, and a jitted step of it on its own batches."""
  built = transfer.build(config)
  data = jax.tree.map(jnp.asarray, built.train_data.load().data)
  step = lambda s: built.train_step(s, built.train_data.get(data, s.step))[0]
  return built, jax.jit(step)


@functools.cache
def run(config):
  """States before step 0 and after each of the run's steps."""
  built, step = stepper(config)
  states = [built.init(jax.random.key(0))]
  for _ in range(config.num_steps):
    states.append(step(states[-1]))
  return states


def changed(layers, old, new):
  """Which layers of the target are of other bytes in two states."""
  params = [jax.device_get(state.params['target']) for state in (old, new)]

  def of(tree, path):
    return functools.reduce(lambda tree, name: tree[name], path.split('/'), tree)

  return {x for x in layers if not same_bytes(*(of(tree, x) for tree in params))}


CONFIG = transfer.Config(
  batch_size=8,
  labels=20,
  num_steps=7,
  source=transfer.Source(num_steps=3),
  features=(4, 4),
  head=headed.Head(dense=8),
)
RESNET = dataclasses.replace(CONFIG, net='resnet', width=2)
LAYERS = ('conv_0', 'norm_0', 'conv_1', 'norm_1', 'hidden', 'head')
BLOCK3 = tuple(f'stage3_block1/{x}' for x in ('conv1', 'norm1', 'conv2', 'norm2'))


class Deeper(models.CNN):
  """What a fork makes of the CNN: a Dense before its two."""

  @nn.compact
  def forward(self, x_BHWC, train):
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    for i, channels in enumerate(self.channels):
      x_BHWC = nn.Conv(channels, (3, 3), strides=2, name=f'conv_{i}', **dtypes)(x_BHWC)
      running = self.frozen_norms or not train
      x_BHWC = nn.BatchNorm(running, name=f'norm_{i}', **dtypes)(x_BHWC)
    x_BF = x_BHWC.reshape(len(x_BHWC), -1)
    x_BF = nn.relu(nn.Dense(self.dense, name='adapter', **dtypes)(x_BF))
    x_BF = nn.relu(nn.Dense(self.dense, name='hidden', **dtypes)(x_BF))
    return nn.Dense(self.num_outputs, name='head', **dtypes)(x_BF), x_BF


class StrategyTest(parameterized.TestCase):
  @parameterized.parameters(
    ('features', {}, LAYERS[4:]),
    ('features', {'head': headed.Head(dense=8, new=False)}, LAYERS[5:]),
    ('last', {}, LAYERS[2:]),
    ('full', {}, LAYERS),
  )
  def test_what_learns_and_what_keeps_every_byte(self, strategy, fields, learns):
    config = dataclasses.replace(CONFIG, strategy=strategy, **fields)
    states = run(config)
    # Before step 3 the target waits; at step 3 it takes the source's trunk.
    self.assertTrue(same_bytes(states[0].params['target'], states[3].params['target']))
    source = states[3].params['source']
    for state in states[4:]:
      self.assertTrue(same_bytes(state.params['source'], source))
    target = states[-1].params['target']
    moved = {x for x in LAYERS if not same_bytes(target[x], source[x])}
    self.assertEqual(moved, set(learns))
    # Statistics move only where the whole trunk learns.
    stats = states[-1].model_state['target'], states[3].model_state['source']
    self.assertEqual(same_bytes(*stats), strategy != 'full')

  @parameterized.parameters(True, False)
  def test_a_hidden_layer_is_new_or_transferred(self, new):
    head = headed.Head(dense=8, new=new)
    states = run(dataclasses.replace(CONFIG, head=head))
    own, given, now = (
      np.array(params['hidden']['kernel'])
      for params in (
        states[3].params['target'],
        states[3].params['source'],
        states[4].params['target'],
      )
    )
    # One step of Adam moves a weight by its rate, 1e-3, at most.
    np.testing.assert_array_less(abs(now - (own if new else given)), 1.01e-3)
    self.assertGreater(abs(now - (given if new else own)).max(), 0.1)

  def test_a_fork_with_one_more_layer_trains_what_its_strategy_says(self):
    config = dataclasses.replace(CONFIG, strategy='last', last=1, seed=5)
    with mock.patch.object(headed, 'CNN', Deeper):
      states = run(config)
    layers = ('conv_0', 'norm_0', 'conv_1', 'norm_1', 'adapter', 'hidden', 'head')
    moved = changed(layers, states[4], states[5])
    self.assertEqual(moved, {'adapter', 'hidden', 'head'})

  def test_scratch_has_no_source(self):
    config = dataclasses.replace(CONFIG, strategy='scratch')
    built = transfer.build(config)
    names = {name.partition('/')[0] for name in built.train_data.shapes[0]}
    self.assertEqual((names, built.phases), ({'target'}, ()))
    states = run(config)
    self.assertEqual(changed(LAYERS, *states[:2]), set(LAYERS))

  def test_the_rate_of_the_trunk_is_its_own(self):
    """Adam's step is in proportion to its rate: 1e-5 is a hundredth of 1e-3."""
    moves = {}
    for rate in (None, 1e-5):
      config = dataclasses.replace(CONFIG, strategy='full', trunk_lr=rate)
      states = run(config)
      before, after = states[3].params['source'], states[4].params['target']
      move = np.array(after['conv_0']['kernel'] - before['conv_0']['kernel'])
      moves[rate] = move, after['head']['kernel']
    whole, small = moves[None][0], moves[1e-5][0]
    # A weight near 0.3 is a multiple of 3e-8.
    np.testing.assert_allclose(small, whole / 100, atol=4e-8)
    self.assertTrue(same_bytes(moves[None][1], moves[1e-5][1]))

  def test_narrow_weights_learn_by_small_steps(self):
    narrow = {'compute_dtype': 'bfloat16', 'param_dtype': 'bfloat16'}
    config = dataclasses.replace(CONFIG, strategy='last', trunk_lr=1e-4, **narrow)
    states = run(config)
    self.assertNotIn('conv_0', changed(LAYERS, states[4], states[7]))
    copies = [s.opt_state['target'] for s in (states[4], states[7])]
    self.assertFalse(same_bytes(*copies))


class UnfreezeTest(parameterized.TestCase):
  def test_everything_at_its_step(self):
    config = dataclasses.replace(CONFIG, unfreeze=unfreezing.Config(at=2))
    states = run(config)
    # Target steps 0 and 1 are run steps 3 and 4.
    moved = [changed(LAYERS, *states[i : i + 2]) for i in (4, 5)]
    self.assertEqual(moved, [{'hidden', 'head'}, set(LAYERS)])
    stats = [state.model_state['target'] for state in states[4:7]]
    self.assertTrue(same_bytes(*stats[:2]))
    self.assertFalse(same_bytes(*stats[1:]))
    phases = transfer.build(config).phases
    self.assertEqual(phases, (('source', 0), ('target', 3), ('all layers', 5)))

  def test_the_last_layers_of_a_resnet_in_the_order_of_the_forward_pass(self):
    unfreeze = unfreezing.Config(at=1, last=4)
    config = dataclasses.replace(RESNET, unfreeze=unfreeze)
    states = run(config)
    layers = ('stem', 'stem_norm', 'stage1_block1/conv1', 'stage2_block1/conv2')
    layers = (*layers, *BLOCK3, 'hidden', 'head')
    frozen, then = changed(layers, *states[3:5]), states[4:6]
    self.assertEqual(frozen - {'stem', *layers}, set())
    self.assertEqual(changed(layers, *then), {*BLOCK3, 'hidden', 'head'})
    for state in states[5:]:  # Norms that learn keep their statistics, too.
      self.assertTrue(
        same_bytes(state.model_state['target'], states[3].model_state['source'])
      )
    self.assertEqual(transfer.build(config).phases[-1], ('last 4 layers', 4))


class NetTest(parameterized.TestCase):
  def test_head_of_keras(self):
    """A mean over positions, Dense 256, dropout and the output: counted by hand."""
    head = headed.Head(pool=True, dense=256, dropout=0.5)
    for net, channels in (('cnn', 4), ('resnet', 8)):
      config = dataclasses.replace(RESNET, net=net, head=head)
      state = jax.eval_shape(transfer.build(config).init, jax.random.key(0))
      target = state.params['target']
      self.assertEqual(target['hidden']['kernel'].shape, (channels, 256), net)
      self.assertEqual(target['head']['kernel'].shape, (256, 5), net)

  def test_dropout_of_a_frozen_trunk_is_that_of_the_head(self):
    """Else a new head would be trained without any."""
    state, step = run(CONFIG)[4], stepper(CONFIG)[1]
    new = [step(state._replace(rng=jax.random.key(i))) for i in (1, 2)]
    self.assertEqual(changed(LAYERS, *new), {'hidden', 'head'})

  @parameterized.parameters('cnn', 'resnet')
  def test_takes_the_trunk_of_another_run(self, net):
    own = {'num_steps': 3, 'eval_every_steps': None, 'save_every_steps': None}
    if net == 'cnn':
      module, known = cnn, cnn.Config(features=(4, 4), dense=16, **own)
    else:
      module, known = resnet, resnet.Config(width=2, depth=8, **own)
    folder = self.create_tempdir().full_path
    known = fit(module.build(known)._replace(figures={}), known, folder).state
    config = dataclasses.replace(
      RESNET, net=net, source=transfer.Source(workdir=folder), num_steps=2
    )
    built = transfer.build(config)
    begun, origin = built.warm_start(built.init(jax.random.key(0)))
    self.assertEqual(origin['step'], 3)
    found = begun.params['target']
    for name in set(found) - {'hidden', 'head'}:
      self.assertTrue(same_bytes(found[name], known.params[name]), name)
    self.assertTrue(
      same_bytes(begun.model_state['target'], known.model_state['batch_stats'])
    )
    self.assertEqual(found['head']['kernel'].shape, (8, 5))


class DataTest(parameterized.TestCase):
  def labels(self, **fields):
    data = transfer.build(dataclasses.replace(CONFIG, **fields)).train_data
    return {name: x['label'] for name, x in data.load().data.items()}

  def test_half_of_the_classes_and_a_share_of_each(self):
    every = self.labels(labels=None)
    self.assertEqual(set(every['source']), set(range(5)))
    self.assertEqual(len(every['source']) + len(every['target']), 1437)
    self.assertEqual(self.labels(share=1.0)['target'].size, every['target'].size)
    some = np.bincount(self.labels(share=0.1)['target'])
    whole = np.bincount(every['target'])
    self.assertLess(abs(some - whole / 10).max(), 1)

  def test_fewer_classes_and_another_set_as_the_source(self):
    few = self.labels(source=transfer.Source(num_steps=3, classes=2))
    self.assertEqual(set(few['source']), {0, 1})
    source = transfer.Source(num_steps=3, dataset='digits_blended')
    other = self.labels(source=source)
    self.assertEqual([len(set(x)) for x in other.values()], [10, 10])
    # In colours, where the target is grey.
    built = transfer.build(dataclasses.replace(CONFIG, source=source))
    state = jax.eval_shape(built.init, jax.random.key(0))
    self.assertEqual(state.params['source']['conv_0']['kernel'].shape, (3, 3, 1, 4))
    jax.eval_shape(built.train_step, state, built.train_data.shapes[0])

  @parameterized.parameters(
    (dict(share=0.0), r'share=0.0 is not allowed: must be in \(0, 1\], or None'),
    (dict(depth=9), r'depth=9 is not allowed: must be 6 n \+ 2'),
    (dict(net='vgg'), 'net=vgg is not allowed: must be cnn or resnet'),
    (dict(head=headed.Head(dense=None)), 'head.dense=None .* must be set for cnn'),
    (dict(strategy='last', last=5), 'last=5 is not allowed: must be at most 4'),
    (dict(source=transfer.Source(classes=6)), 'source.classes=6 .* at most 5'),
  )
  def test_what_cannot_be(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      transfer.build(dataclasses.replace(CONFIG, **fields))


if __name__ == '__main__':
  absltest.main()
