"""Tests for the rules of dlx/inspect on a net of two layers with one fault each."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.data.dataset import Loaded, Streamed
from dlx.experiment import Config, Eval, Experiment, Field, Function
from dlx.inspect import beginning, gradients, learning, subject, timing, units
from dlx.state import Mean, Metric, create, mean
from dlx.train import steps
from tests.dlx.run import kinds

RNG = np.random.default_rng(0)
WIDTH = 32  # Of so many inputs two nets that learnt nothing agree by chance.
X = RNG.normal(size=(512, WIDTH)).astype(np.float32)
LABEL = (X[:, 0] > 0).astype(np.int32)  # Learnt in a few steps.
CHANCE = float(np.log(2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Small(Config):
  """One fault or none."""

  batch_size: int = 32
  fault: str = ''


def build(config):
  fault = config.fault
  tx = optim.adam(3e-2)
  scale = 100.0 if fault == 'inputs' else 1.0
  label = np.roll(LABEL, 7) if fault == 'labels' else LABEL

  def init(key):
    draw = lambda i, *shape: jax.random.normal(jax.random.fold_in(key, i), shape) / 4
    size = {'vanishing': 1e-9, 'exploding': 1e5}.get(fault, 1.0)
    hidden = {'kernel': size * draw(0, WIDTH, 16), 'bias': jnp.zeros(16)}
    if fault == 'dead':
      hidden['bias'] -= 100
    params = {'hidden': hidden, 'head': {'kernel': size * draw(1, 16, 2)}}
    stats = {'batch_stats': {'hidden': {'mean': jnp.zeros(WIDTH)}}}
    return create(params, tx.init(params), key, model_state=stats)

  def logits_of(params, batch):
    x = scale * batch['x'] @ params['hidden']['kernel'] + params['hidden']['bias'][None]
    x = jax.nn.relu(x)
    if fault == 'nan':
      with jax.named_scope('rooted'):
        x = x + jnp.sqrt(x - 1e3)
    return x @ params['head']['kernel']

  def losses_of(params, batch):
    log_BK = jax.nn.log_softmax(logits_of(params, batch))
    return -jnp.take_along_axis(log_BK, batch['label'][:, None], 1)[:, 0]

  def train_step(state, batch):
    def loss_fn(params, model_state, batch, rng):
      loss = mean(losses_of(params, batch))
      if fault == 'sum':
        loss = Mean(loss.total, jnp.ones(()))
      old = model_state['batch_stats']['hidden']['mean']
      new = old if fault == 'evaluation mode' else batch['x'].mean(0)
      stats = {'batch_stats': {'hidden': {'mean': new}}}
      return loss, (stats, {})

    grads, stats, sums = steps.gradients(
      loss_fn, state.params, state.model_state, batch, state.rng
    )
    new = steps.apply(tx, state, grads, model_state=stats)
    if fault == 'frozen':
      new = new._replace(params={**new.params, 'head': state.params['head']})
    return new, sums

  def test(state, batch):
    logits = logits_of(state.params, batch)
    right = (logits.argmax(1) == batch['label']).astype(jnp.float32)
    return {
      'loss': mean(losses_of(state.params, batch), batch['weight']),
      'accuracy': mean(right, batch['weight']),
    }

  probabilities = Field('probabilities', (2,), 'float32')
  predict = Function(
    lambda s, x: {'probabilities': jax.nn.softmax(logits_of(s.params, x))},
    {'x': Field('row', (WIDTH,), 'float32')},
    {'probabilities': probabilities},
  )
  train = {'x': X, 'label': label}
  return Experiment(
    init,
    train_step,
    kinds.Rolling(train, config.batch_size),
    {'test': Eval(test, kinds.Rolling({'x': X, 'label': LABEL}, 64, passes=True))},
    functions={'predict': predict},
    metrics={'accuracy': Metric('Accuracy', 'higher', 'Share.')},
  )


def examined(fault, steps=30):
  asked = subject.Subject(build, Small(fault=fault))
  return asked, asked.run(steps)


def names(report):
  return [f.name for f in report.findings]


def test_without_a_fault_nothing_is_found():
  asked, run = examined('')
  reports = [
    learning.finite(asked, run),
    beginning.inputs(asked),
    beginning.report(asked, run),
    gradients.report(asked, run),
    units.report(asked, run.last),
    learning.labels_matter(asked, run, True),
    learning.generalisation(asked, run),
    timing.report(asked, run, 1000),
  ]
  assert [names(r) for r in reports] == [[]] * len(reports)
  assert [r.skipped for r in reports] == [None] * len(reports)
  assert beginning.chance(asked) == pytest.approx(CHANCE)
  assert 'reads mean' in reports[1].said


@pytest.mark.parametrize(
  ('fault', 'name', 'told'),
  [
    ('vanishing', 'gradient_vanishing', '3 of 3 gradients are vanishing'),
    ('exploding', 'gradient_exploding', 'are exploding: '),
    (
      'frozen',
      'frozen_layer',
      '1 of 3 tensors kept every bit in 30 steps: head/kernel',
    ),
    (
      'evaluation mode',
      'batch_norm_in_evaluation_mode',
      '1 running statistics kept every bit in 30 training steps: batch_stats/hidden',
    ),
    ('dead', 'gradient_zero', '3 of 3 gradients are zero'),
  ],
)
def test_faults_that_gradients_show(fault, name, told):
  report = gradients.report(*examined(fault))
  assert names(report) == [name]
  assert told in report.findings[0].evidence


def test_a_sum_grows_with_the_batch():
  (found,) = beginning.report(*examined('sum', 1)).findings
  assert found.name == 'sum_in_place_of_mean'
  assert 'of 32 examples, ' in found.evidence and 'of its halves' in found.evidence


def test_inputs_out_of_scale():
  (found,) = beginning.inputs(examined('inputs', 1)[0]).findings
  assert found.name == 'inputs_not_scaled'


def test_labels_that_say_nothing():
  asked, run = examined('labels')
  assert names(learning.labels_matter(asked, run, True)) == ['labels_shuffled']
  assert learning.labels_matter(asked, run, False).skipped


def test_dead_units_are_named():
  asked, run = examined('dead')
  (found,) = units.report(asked, run.last).findings
  assert '16 of 16 ReLUs' in found.evidence and found.severity == 'error'


def test_the_layer_and_the_line_of_a_nan():
  asked, run = examined('nan')
  assert len(run.metrics) == 1 and not run.finite
  (found,) = learning.finite(asked, run).findings
  assert 'sqrt in layer rooted, at rules_test.py:' in found.evidence
  assert found.where.startswith('rules_test.py:')


class Slow(Streamed):
  """Batches that take a while."""

  def __init__(self, seconds):
    self.seconds = seconds
    one = {'x': X[:32], 'label': LABEL[:32]}
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    self.shapes = ({k: shape(v) for k, v in one.items()},)

  def load(self, data_dir=None):
    return Loaded(
      (), {'name': 'slow', 'split': 'train', 'kind': 'generated', 'size': 32}
    )

  def get(self, data, step, rows):
    time.sleep(self.seconds)
    return {'x': X[:32][rows], 'label': LABEL[:32][rows]}


def test_waiting_for_input_is_named():
  slow = lambda config: build(config)._replace(train_data=Slow(0.1))
  asked = subject.Subject(slow, Small())
  (found,) = timing.report(asked, asked.run(8), 100).findings
  assert (found.name, found.severity) == ('input_stalls', 'error')
