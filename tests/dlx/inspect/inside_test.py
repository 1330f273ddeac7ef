"""Activations, dead units and gradient norms as figures: exact numbers, every model."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.experiment import Eval, Experiment
from dlx.figures import inside as draw
from dlx.inspect import operations
from dlx.inspect.inside import NORMS, inside
from dlx.run import experiments_by_name, loop, reopen
from dlx.state import Mean, add, create
from dlx.train import steps
from tests import turns
from tests.dlx.run import kinds
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

# Unit 0 is on for x > 0, unit 1 for x < 0, unit 2 never, unit 3 at x = 3 alone.
PARAMS = {
  'kernel': np.array([[1.0, -1.0, 0.0, 1.0]], np.float32),
  'bias': np.array([0.0, 0.0, -1.0, -2.5], np.float32),
  'head': np.ones((4, 1), np.float32),
  'faint': np.float32(1.0),
  'loud': np.float32(1.0),
  'unused': np.float32(1.0),
}
DATA = kinds.Rolling({'x': np.array([[1.0], [2.0]], np.float32)}, 2)


def net(params, x):
  with jax.named_scope('hidden'):
    y = x @ params['kernel'] + params['bias'][None]
  y = jax.nn.relu(y)
  with jax.named_scope('head'):
    return y @ params['head']


def planted() -> Experiment:
  """A net with a dead unit, and a gradient for each label."""

  def loss_fn(params, model_state, batch, rng):
    loss = net(params, batch['x']).sum()
    loss += 1e-8 * params['faint'] + 1e3 * params['loud'] + 0 * params['unused']
    return Mean(loss, jnp.float32(1)), (model_state, {})

  def train_step(state, batch):
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    return state._replace(step=state.step + 1), sums

  def evaluate(state, batch):
    out = net(state.params, batch['x'])[:, 0]
    return {'loss': Mean((out * batch['weight']).sum(), batch['weight'].sum())}

  params = jax.tree.map(jnp.asarray, PARAMS)
  return Experiment(
    lambda key: create(params, (), key),
    train_step,
    DATA,
    {'test': Eval(evaluate, DATA)},
  )


def batch(*x):
  return {'x': jnp.array(x)[:, None], 'weight': jnp.ones(len(x))}


def passed(experiment, *batches):
  """The summary of a pass over the batches."""
  state, evaluation = experiment.init(jax.random.key(0)), experiment.evals['test']
  sums = [jax.jit(evaluation.step)(state, b) for b in batches]
  total = sums[0]
  for more in sums[1:]:
    total = add(total, more)
  return jax.jit(evaluation.summarize)(total)


def test_dead_units_are_exact_over_unequal_batches_and_the_rest_is_as_before():
  data = batch(1.0, 2.0), batch(-1.0), batch(3.0, 2.0)
  found, plain = passed(inside(planted()), *data), passed(planted(), *data)
  assert float(found['dead_units']) == 0.25
  (name,) = found['units']
  assert name == '000 hidden'
  assert [int(x) for x in found['units'][name]] == [1, 4]
  assert float(found['loss']) == float(plain['loss'])
  # The first batch alone would call three of four dead.
  assert float(passed(inside(planted()), data[0])['dead_units']) == 0.75


def test_gradient_norms_have_the_three_labels():
  experiment = inside(planted())
  figure = experiment.figures['gradient_norms']
  assert figure.compute is not None and figure.data is DATA
  state = experiment.init(jax.random.key(0))
  tree = jax.jit(figure.compute)(state, jax.random.key(0), batch(1.0, 2.0))
  norms = {name.partition(' ')[2]: float(x) for name, x in tree.items()}
  # Of kernel column 0 at x = 1 and 2: the gradient is 3.
  assert norms['kernel'] == 3
  drawn = figure.draw(jax.tree.map(np.array, tree))
  rows = [t.get_text() for t in drawn.axes[0].get_yticklabels()]
  said = dict(zip(rows, (t.get_text() for t in drawn.axes[0].texts), strict=True))
  assert said['unused'] == 'zero' and said['faint'] == 'vanishing'
  assert said['loud'] == 'exploding' and said['kernel'] == '3.0e+00'
  assert '3 of 6' in drawn.axes[0].get_title('left')


def test_the_step_reports_the_norm_of_each_layer_and_is_the_step_before():
  def loss_fn(params, model_state, batch, rng):
    one, two = params['one'], params['two']
    loss = (3 * one['kernel'] + 4 * one['bias'] + params['alone'] * batch['x']).sum()
    return Mean(loss + jnp.sqrt(two['kernel']), jnp.float32(1)), (model_state, {})

  def train_step(state, batch):
    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    params = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    return state._replace(step=state.step + 1, params=params), sums

  params = {'one': {'kernel': 1.0, 'bias': 1.0}, 'two': {'kernel': 0.0}, 'alone': 1e30}
  state = create(jax.tree.map(jnp.float32, params), (), jax.random.key(0))
  plain = Experiment(lambda key: state, train_step, DATA)
  large = {'x': jnp.array([3e30])}
  new, sums = jax.jit(inside(plain).train_step)(state, large)
  # A layer is a folder; a norm that is not finite counts nothing, a large one 1e30.
  found = {name: (float(x.total), float(x.count)) for name, x in sums[NORMS].items()}
  assert found == {'one': (5, 1), 'two': (0, 0), 'alone': (pytest.approx(1e30), 1)}
  wanted, own = jax.jit(plain.train_step)(state, large)
  np.testing.assert_array_equal(new.params['one']['bias'], wanted.params['one']['bias'])
  assert set(sums) == {*own, NORMS}


def test_a_run_logs_the_norms_goes_on_with_them_and_draws_them(tmp_path):
  config = kinds.Small(num_steps=5, log_every_steps=2)
  experiment = inside(planted()._replace(evals={}))
  figure = experiment.figures['gradients_by_step']
  shown = []
  watched = experiment._replace(
    figures={'f': figure._replace(draw=lambda tree: shown.append(tree) or 'text')}
  )
  loop.fit(watched, config, tmp_path, stop_at=3)
  assert not shown
  loop.fit(watched, config, tmp_path)
  (logged,) = shown
  assert list(logged['step']) == [2, 4, 5]
  layers = logged['groups'][NORMS]
  assert set(layers) == set(PARAMS)
  np.testing.assert_array_equal(layers['kernel'], [3, 3, 3])
  np.testing.assert_array_equal(layers['unused'], [0, 0, 0])
  figure.draw(logged)
  again = reopen.draw(watched, config, tmp_path, 'f')
  assert again == 'text'
  chex.assert_trees_all_equal(shown[1], logged)


def test_the_picture_of_norms_by_step_marks_what_is_out_of_bounds():
  steps_N = np.array([10, 20, 25])
  layers = {f'hidden_{i}': np.full(3, 0.1 * 2**i) for i in (10, 2, 1)}
  layers |= {'dead': np.array([0, 1e-9, np.nan]), 'wild': np.array([1.0, 101, 99])}
  drawn = draw.norms_by_step(steps_N, layers, 1e-7, 100)
  ax, bar = drawn.axes
  rows = [row.get_text() for row in ax.get_yticklabels()]
  assert rows == ['dead', 'hidden_1', 'hidden_2', 'hidden_10', 'wild']
  colours = ax.collections[0]
  values = colours.get_array().reshape(5, 3)
  low, high = colours.get_clim()
  assert (low, high) == (0.2, 99)  # hidden_10 is 102.4: above.
  assert (values[0, :2] < low).all() and values.mask[0, 2]
  np.testing.assert_array_equal(values[4], layers['wild'])
  assert drawn.get_supxlabel() == 'grey: below 1e-07, 13%; red: above 100, 27%'
  assert len(bar.collections) or bar.has_data()
  many = {f'l{i}': np.ones(3) for i in range(100)}
  rows = draw.norms_by_step(steps_N, many, 1e-7, 100).axes[0].get_yticklabels()
  assert len(rows) == draw.MOST
  assert (rows[0].get_text(), rows[-1].get_text()) == ('l0', 'l99')
  empty = draw.norms_by_step(steps_N[:0], {}, 1e-7, 100)
  assert 'names no gradients' in empty.axes[0].get_title('left')


def test_activations_are_what_the_next_layer_reads_and_the_last_one_gives():
  experiment = inside(planted())
  figure, state = experiment.figures['activations'], experiment.init(jax.random.key(0))
  tree = jax.jit(figure.compute)(state, jax.random.key(0), batch(1.0, 2.0, 3.0))
  assert list(tree) == ['000 input', '001 hidden', '002 head']
  x = np.array([[1.0], [2.0], [3.0]], np.float32)
  hidden = np.maximum(x @ PARAMS['kernel'] + PARAMS['bias'], 0)
  for name, values in zip(tree, (x, hidden, hidden @ PARAMS['head']), strict=True):
    found = tree[name]
    low, high = values.min(), values.max()
    wanted, _ = np.histogram(values, operations.BINS, (low, high))
    assert int(found.counts.sum()) == values.size
    # A value on the edge of two bins may fall into either.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(wanted)).max() <= 1, name
    numbers = [low, high, values.mean(), values.std(), (values == 0).mean()]
    np.testing.assert_allclose(found[1:], numbers, rtol=1e-6)
  figure.draw(jax.tree.map(np.array, tree))


def test_a_flax_model_names_its_layers_bias_and_norm_included():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      for i in range(2):
        x = nn.gelu(nn.Dense(3, name=f'hidden_{i}')(x))
      return nn.Dense(2, name='head', bias_init=nn.initializers.constant(100.0))(x)

  model = Net()
  params = model.init(jax.random.key(0), jnp.zeros((1, 4)))

  def step(params, batch):
    return jax.nn.log_softmax(model.apply(params, batch['x'])).mean()

  found = operations.tapped('activation', step)(params, {'x': jnp.ones((5, 4))})[1]
  assert [tap.layer for tap, _ in found] == ['', 'hidden_0', 'hidden_1', 'head']
  assert float(found[-1][1].low) > 90  # With its bias, and no log-softmax of it.


def test_layers_of_a_scan_are_apart():
  def step(w, batch):
    body = lambda x, w: (jnp.tanh(x @ w), None)
    return jax.lax.scan(body, batch['x'], w)[0]

  w = jnp.stack([jnp.eye(2), 2 * jnp.eye(2), jnp.eye(2)])
  found = operations.tapped('activation', step)(w, {'x': jnp.ones((3, 2))})[1]
  x = [1.0]
  for scale in (1, 2):
    x.append(np.tanh(scale * x[-1]))
  (read, *_) = [v for tap, v in found if tap.stacked]
  np.testing.assert_allclose(read.mean, x, rtol=1e-6)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_histogram_of_what_is_not_finite_and_of_one_number(value):
  found = operations.histogram(jnp.array([1.0, 2.0, value]))
  assert int(found.counts.sum()) == 2 and not np.isfinite(found.mean)
  assert (float(found.low), float(found.high)) == (1, 2)
  found = operations.histogram(jnp.full(4, 7.0))
  assert int(found.counts[0]) == 4 and float(found.deviation) == 0


def test_without_an_evaluation_gradients_alone_are_drawn():
  experiment = inside(planted()._replace(evals={}))
  assert list(experiment.figures) == ['gradient_norms', 'gradients_by_step']


def test_pictures_of_many_layers_and_of_none():
  one = operations.histogram(jnp.arange(5.0))
  drawn = draw.activations({f'layer_{i}': one for i in range(30)})
  assert sum(ax.axison for ax in drawn.axes) == draw.MOST
  draw.activations({})
  assert 'No ReLU' in draw.dead_units({}, 'Dead').axes[0].get_title('left')
  norms = {f't{i}': 1.0 for i in range(40)} | {'last': 0.0, 'broken': np.nan}
  draw.gradient_norms({}, {}, 1e-7, 100, 'x')
  labels = dict.fromkeys(norms, '') | {'last': 'zero', 'broken': 'not finite'}
  rows = draw.gradient_norms(norms, labels, 1e-7, 100, 'x').axes[0].get_yticklabels()
  assert len(rows) == draw.MOST
  assert {'last', 'broken'} <= {row.get_text() for row in rows}


# Their train steps have or name no gradients, or do so in a branch of phases alone.
UNNAMED = (
  *tiers.FITTED,
  *('dcgan', 'deep_belief_net', 'distill', 'gan', 'knn', 'perceptron', 'transfer'),
)


def of_every_experiment():
  for i, name in enumerate(experiments_by_name.names()):
    yield pytest.param(name, marks=turns.seldom(i, 8))


@pytest.mark.parametrize('name', list(of_every_experiment()))
def test_every_experiment_takes_it(name):
  built = load(name).build(small(name))
  state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  experiment = inside(built)
  for split, evaluation in experiment.evals.items():
    shapes = evaluation.data.shapes[0]
    found = jax.eval_shape(
      lambda s, b, e=evaluation: e.summarize(e.step(s, b)), state, shapes
    )
    own = built.evals[split]
    plain = jax.eval_shape(lambda s, b, e=own: e.summarize(e.step(s, b)), state, shapes)
    assert set(plain) <= set(found) <= {*plain, 'dead_units', 'units'}
  key = jax.eval_shape(lambda: jax.random.key(0))
  _, sums = jax.eval_shape(experiment.train_step, state, built.train_data.shapes[0])
  assert (NORMS in sums) == (name not in UNNAMED)
  for figure in ('activations', 'gradient_norms'):
    made = experiment.figures.get(figure)
    if made is not None:
      tree = jax.eval_shape(made.compute, state, key, made.data.shapes[0])
      # Trees are no layers: what scikit-learn has fitted is read by look-ups.
      bare = name in UNNAMED if figure == 'gradient_norms' else name in tiers.FITTED
      assert tree or bare
