"""Perceptron: the rule of one neuron, and the bound on its mistakes (Rosenblatt 1958).

  python -m launch.train --exp=perceptron
  python -m launch.train --exp=perceptron --config.margin=0.02 --config.num_steps=5000

Examples of length 1, each `margin` away from a plane through 0 that the neuron does not
know, come one after the other, none of them twice. The rule adds a misclassified
example to the weights, with the sign of its class, and does nothing else. Novikoff
(1962): in a stream of any length it makes at most 1 / margin^2 mistakes. A second
neuron, with a bias, learns XOR by the same rule from as many examples: no line
separates XOR, and the mistakes never end (Minsky and Papert 1969). The rule, the
theorem and its proof in NumPy: dlx/scratch/perceptron.py.

The rule looks at one example at a time, so that a batch only says how many examples are
a step. `loss` is the share of mistakes.

Measured: margin 0.1, 57.0 mistakes (sd 1.0, 3 seeds); the bound is 100.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dlx import experiment, figures, metrics, optim
from dlx.data.batches.generated import fixed, generated
from dlx.state import Mean, Metric, create, stream
from dlx.train import curves

SQUARE = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
XOR = np.array([-1, 1, 1, -1], np.float32)
_SHARE = Metric(
  'Mistakes',
  'lower',
  'Share of the examples that were classified wrongly when they came.',
  '%',
  'share',
)
METRICS = {
  'loss': _SHARE,
  'xor_loss': _SHARE._replace(
    title='Mistakes on XOR',
    meaning='Share of the examples of XOR that were classified wrongly when they came.',
  ),
  'accuracy': Metric(
    'Accuracy',
    'higher',
    'Share of the examples that are on the right side of the plane.',
    '%',
    'share',
    0.5,
  ),
  'mistakes': Metric(
    'Mistakes so far', 'lower', 'Number of mistakes since the start of the run.'
  ),
  'test/of_bound': Metric(
    'Mistakes over the bound',
    'lower',
    "Number of mistakes since the start of the run, divided by Novikoff's bound; never "
    'above 100 %.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 500  # Batches that the rule goes through, one example at a time.
  eval_every_steps: int | None = 100  # Steps between evaluations; None: at the end.
  features: int = 32  # Inputs of the neuron.
  margin: float = 0.1  # Distance of each example from the plane.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('features', least=2)
    self.bounds('margin', least=0.01, below=1)
    # Examples are counted in int32.
    few = self.num_steps * self.batch_size < 2**31
    self.require('num_steps', few, f'below 2**31 / batch_size={self.batch_size}')
    self.choice('compute_dtype', 'param_dtype', of=('float32', 'float64'))
    self.unused('micro_batches', 'stream', why='examples come one at a time')
    self.unused('clip_norm', 'clip_value', 'ema_decay', why='the rule has none')


# The least run that still has every part.
SMALL = Config.small(margin=0.2)


def build(config: Config) -> experiment.Experiment:
  dtype = config.param_dtype
  # Mistakes are whole numbers; of the margin 0.1 the quotient may be 99.99999.
  bound = int(1 / config.margin**2 + 1e-6)
  unknown_F = jnp.full((config.features,), config.features**-0.5)

  def separable(key):
    """An example of length 1 whose part along the unknown direction is the margin."""
    side, away = jax.random.split(key)
    sign = jax.random.rademacher(side, (), jnp.float32)
    across_F = jax.random.normal(away, (config.features,))
    across_F -= (across_F @ unknown_F) * unknown_F
    across_F *= (1 - config.margin**2) ** 0.5 / jnp.linalg.norm(across_F)
    return {'x': sign * config.margin * unknown_F + across_F, 'sign': sign}

  def example(key):
    corner = jax.random.randint(stream(key, 'xor'), (), 0, 4)
    xor = {'corner': jnp.asarray(SQUARE)[corner], 'xor': jnp.asarray(XOR)[corner]}
    return {**separable(key), **xor}

  def with_one(corner_B2):
    """The bias is the weight of an input that is always 1."""
    return jnp.pad(corner_B2, ((0, 0), (0, 1)), constant_values=1)

  def init(key):
    zeros = {'separable': jnp.zeros(config.features, dtype), 'xor': jnp.zeros(3, dtype)}
    # The number of examples after which each mistake was made, up to the bound.
    seen = {name: jnp.zeros(bound, jnp.int32) for name in zeros}
    mistakes = {name: jnp.zeros((), jnp.int32) for name in zeros}
    model_state = {'mistakes': mistakes, 'seen': seen}
    return create(zeros, (), jax.random.fold_in(key, 0), model_state=model_state)

  def one(weight_F, example):
    """The rule: (weights after an example, whether it was a mistake)."""
    x_F, sign = example
    wrong = sign * (x_F @ weight_F) <= 0
    return weight_F + jnp.where(wrong, sign, 0) * x_F, wrong

  def train_step(state, batch):
    first = state.step * config.batch_size
    rows = {
      'separable': (batch['x'], batch['sign']),
      'xor': (with_one(batch['corner']), batch['xor']),
    }
    params, model_state, sums = {}, {'mistakes': {}, 'seen': {}}, {}
    for name, examples in rows.items():
      examples = jax.tree.map(lambda x: x.astype(dtype), examples)
      params[name], wrong_B = jax.lax.scan(one, state.params[name], examples)
      number_B = state.model_state['mistakes'][name] + jnp.cumsum(wrong_B)
      place_B = jnp.where(wrong_B, number_B - 1, bound)
      count_B = (first + 1 + jnp.arange(config.batch_size)).astype(jnp.int32)
      seen = state.model_state['seen'][name].at[place_B].set(count_B, mode='drop')
      model_state['seen'][name] = seen
      model_state['mistakes'][name] = number_B[-1].astype(jnp.int32)
      sums['loss' if name == 'separable' else 'xor_loss'] = metrics.mean(wrong_B)
    # The rule is a descent of rate 1; what was subtracted is its gradient.
    grads = jax.tree.map(jnp.subtract, state.params, params)
    old, new = (state.params, ()), (params, ())
    sums |= curves.between(config, optim.sgd(1.0), state.step, old, new, grads)
    new_state = state._replace(params=params, model_state=model_state)
    return new_state._replace(step=state.step + 1), sums

  def predict(state, inputs):
    x_BF = inputs['x'].astype(dtype)
    return {'positive': jax.nn.sigmoid(x_BF @ state.params['separable'])}

  def scores(state, name, right_B, weight_B):
    mistakes = state.model_state['mistakes'][name].astype(jnp.float32)
    return {
      'accuracy': metrics.mean(right_B, weight_B),
      'mistakes': Mean(mistakes, jnp.ones(())),
    }

  def test(state, batch):
    right_B = (predict(state, batch)['positive'] > 0.5) == (batch['sign'] > 0)
    found = scores(state, 'separable', right_B, batch['weight'])
    total, count = found['mistakes']
    return {**found, 'of_bound': Mean(total / bound, count)}

  def test_xor(state, batch):
    z_B = with_one(batch['corner']).astype(dtype) @ state.params['xor']
    right_B = (z_B > 0) == (batch['xor'] > 0)
    return scores(state, 'xor', right_B, batch['weight'])

  def draw(tree):
    lines = {'separable': tree['seen']['separable'], 'XOR': tree['seen']['xor']}
    seen = {name: x[x > 0] for name, x in lines.items()}
    title = f'Mistakes of the rule, margin {config.margin:g}'
    examples = int(tree['examples'])
    return figures.mistakes(seen, examples=examples, bound=bound, title=title)

  def compute(state, key, batch):
    del key, batch
    examples = state.step * config.batch_size
    return {'seen': state.model_state['seen'], 'examples': examples}

  # No run has this seed: the examples of the test are others.
  unseen = generated(separable, config.eval_batch_size, 2**32 - 1, size=1000)
  four = fixed({'corner': SQUARE, 'xor': XOR}, weight=True, name='xor')
  return experiment.Experiment(
    init,
    train_step,
    generated(example, config.batch_size, config.seed, name='separable'),
    {'test': experiment.Eval(test, unseen), 'xor': experiment.Eval(test_xor, four)},
    functions={
      'predict': experiment.Function(
        predict,
        {'x': experiment.Field('row', (config.features,), 'float32')},
        {'positive': experiment.Field('number', (), dtype)},
      )
    },
    metrics=METRICS,
    headline=('test/mistakes', 'test/of_bound', 'test/accuracy', 'xor/accuracy'),
    figures={'mistakes': experiment.Figure(draw, compute)},
  )
