"""In-context learning: the tasks, the best answer, what a prediction may see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from experiments.transformers import few_shot

CONFIG = few_shot.Config(
  **{'examples': 6, 'num_layers': 2, 'num_heads': 2, 'width': 16, 'batch_size': 4}
)


def test_tasks_are_lines_with_noise():
  draw = jax.jit(jax.vmap(lambda key: few_shot.draw_task(key, 40, 3, 0.1)))
  found = jax.tree.map(np.array, draw(jax.random.split(jax.random.key(0), 500)))
  assert found['x'].shape == (500, 40, 3) and found['y'].shape == (500, 40)
  # Of each task least squares leaves the noise: 37 of 40 degrees of freedom.
  left = [
    np.linalg.lstsq(x, y, rcond=None)[1][0] / 37
    for x, y in zip(found['x'].astype(float), found['y'])
  ]
  assert np.mean(left) == pytest.approx(0.01, rel=0.03)
  # 500 draws of w of three entries: the variance of y is known to some 5 %.
  assert found['y'].var() == pytest.approx(1.01, rel=0.15)


def test_bayes_is_ridge_regression_on_the_pairs_before():
  rng = np.random.default_rng(0)
  x_KD, y_K, noise = rng.normal(size=(9, 3)), rng.normal(size=9), 0.3
  wanted = []
  for k in range(9):
    seen_ND = x_KD[:k]
    # Noise over the variance of an entry of w, 1 / 3.
    inner_DD = seen_ND.T @ seen_ND + noise**2 * 3 * np.eye(3)
    wanted.append(x_KD[k] @ np.linalg.solve(inner_DD, seen_ND.T @ y_K[:k]))
  with jax.enable_x64(True):
    found = np.array(jax.jit(few_shot.bayes, static_argnums=2)(x_KD, y_K, noise))
  assert found[0] == 0
  np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope='module')
def built():
  return few_shot.build(CONFIG)


@pytest.fixture(scope='module')
def state(built):
  state = jax.jit(built.init)(jax.random.key(0))
  # The head begins with zeros: any other one looks at what it is given.
  kernel = jax.random.normal(jax.random.key(1), state.params['head']['kernel'].shape)
  head = {**state.params['head'], 'kernel': kernel}
  return state._replace(params={**state.params, 'head': head})


def asked(rows, count):
  key = jax.random.key(2)
  x = jax.random.normal(key, (rows, count, 3))
  return {'x': x, 'y': jax.random.normal(key, (rows, count))}


def test_a_prediction_sees_the_pairs_before_and_its_x_alone(built, state):
  inputs = asked(1, 6)
  answer = lambda inputs: built.functions['predict'].call(state, inputs)['y'][0]
  grads = jax.jit(jax.grad(answer))(inputs)
  assert (jnp.abs(grads['x']) > 0).all()
  np.testing.assert_array_equal(grads['y'][0] != 0, [True] * 5 + [False])
  # Of fewer pairs the rest that fills up is not seen: the model itself is asked.
  model = few_shot.InContextRegressor(
    2, few_shot.BlockConfig(width=16, num_heads=2, unroll=2)
  )
  third = lambda state, inputs: model.apply(
    {'params': state.params}, (inputs['x'], inputs['y']), train=False
  )[0, 2]
  np.testing.assert_allclose(
    jax.jit(answer)({name: x[:, :3] for name, x in inputs.items()}),
    jax.jit(third)(state, {**inputs, 'y': inputs['y'].at[:, 2:].set(7.0)}),
    rtol=1e-5,
    atol=1e-6,
  )


def test_errors_of_an_evaluation(built, state):
  evaluation = built.evals['test']
  batch = jax.jit(lambda step: evaluation.data.get({}, step))(jnp.int32(0))
  found = evaluation.summarize(jax.jit(evaluation.step)(state, batch))
  # Without examples the best answer is 0: its error is the variance of y.
  assert 0 < float(found['bayes_last']) < 0.5
  assert set(found) == {*few_shot.TITLES, 'loss'}
  figure = built.figures['shots']
  net, best, zero = jax.jit(figure.compute)(state, jax.random.key(0), batch)
  assert float(net[0]) == pytest.approx(float(found['error_first']), rel=0.2)
  assert float(best[0]) == pytest.approx(float(zero[0]))
  assert float(best[-1]) < 0.5 * float(zero[-1])
  drawn = figure.draw(jax.tree.map(np.array, (net, best, zero)))
  assert list(drawn.axes[0].get_lines()[0].get_xdata()) == list(range(6))


@pytest.mark.parametrize(
  ('fields', 'message'),
  (
    ({'examples': 1}, 'config.examples=1 is not allowed: must be at least 2'),
    ({'noise': 0.0}, 'config.noise=0.0 is not allowed: must be above 0'),
    ({'width': 10}, 'width=10 is not allowed: must be a multiple of num_heads=4'),
    ({'stream': True}, 'tasks are drawn anew'),
  ),
)
def test_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    few_shot.Config(**fields)


def test_more_pairs_than_it_was_trained_with_are_refused(built, state):
  with pytest.raises(ConfigError, match='7 pairs are not allowed: must be at most 6'):
    built.functions['predict'].call(state, asked(2, 7))
