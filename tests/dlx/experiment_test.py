"""Tests for dlx/experiment.py: checks, configs that carry tracers, many members."""

import dataclasses
import json

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp

from dlx.config import Config, traced
from dlx.errors import ConfigError
from dlx.experiment import declared
from dlx.state import Metric
from dlx.train.members import vectorize
from experiments.foundations import softmax_regression

CONFIG = softmax_regression.Config(num_steps=5, batch_size=16, lr=1e-3)


class DeclaredTest(absltest.TestCase):
  def test_declarations_survive_json(self):
    built = softmax_regression.build(CONFIG)._replace(
      metrics={'test/loss': Metric('Loss', 'lower', 'Mean.', 'nats')},
      headline=('test/loss',),
      phases=(('teacher', 0), ('student', 3)),
    )
    found = declared(built)
    wanted = {
      'metrics': {
        'test/loss': {
          'title': 'Loss',
          'better': 'lower',
          'meaning': 'Mean.',
          'unit': 'nats',
          'group': '',
          'chance': None,
        }
      },
      'headline': ['test/loss'],
      'phases': [['teacher', 0], ['student', 3]],
    }
    self.assertEqual(json.loads(json.dumps(found)), wanted)
    self.assertEqual(found, wanted)
    self.assertEqual(declared(vectorize(built, 2)), wanted)


def train(config, arrays):
  """Parameters and summed loss after the steps of a config."""
  built = softmax_regression.build(config)
  state, total = built.init(jax.random.key(0)), 0.0
  for _ in range(CONFIG.num_steps):
    state, sums = built.train_step(state, built.train_data.get(arrays, state.step))
    total += sums['loss'].total
  return state.params, total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked(Config):
  width: int = 4
  share: float = 0.5
  rate: float | None = None
  widths: tuple[int, ...] = (3,)
  cells: tuple[int, ...] = ()
  kind: str = 'a'
  mode: str = 'x'

  def __post_init__(self):
    super().__post_init__()
    self.bounds('width', least=2, most=8)
    self.bounds('share', least=0, below=1)
    self.bounds('rate', above=0, most=1)
    self.bounds('widths', least=1, some=True)
    self.bounds('cells', below=3)
    self.choice('kind', of=('a', 'b'))
    self.choice('mode', of=['x', 'y', 'z'])
    self.unused('stream', 'ema_decay', why='nothing is averaged')


class ChecksTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(width=2),
    dict(width=8),
    dict(share=0.0),
    dict(share=0.999),
    dict(rate=None),
    dict(rate=1.0),
    dict(rate=1e-9),
    dict(widths=(1, 9)),
    dict(cells=()),
    dict(cells=(2, -5)),
    dict(kind='b'),
    dict(mode='z'),
    dict(ema_decay=None),
  )
  def test_allows(self, **fields):
    ((name, value),) = fields.items()
    self.assertEqual(getattr(Checked(**fields), name), value)

  @parameterized.parameters(
    (dict(width=1), 'in [2, 8]'),
    (dict(width=9), 'in [2, 8]'),
    (dict(width=None), 'in [2, 8]'),
    (dict(share=-1e-9), 'in [0, 1)'),
    (dict(share=1.0), 'in [0, 1)'),
    (dict(share=float('nan')), 'in [0, 1)'),
    (dict(rate=0.0), 'in (0, 1], or None'),
    (dict(rate=1.1), 'in (0, 1], or None'),
    (dict(widths=(3, 0)), 'one or more numbers, each at least 1'),
    (dict(widths=()), 'one or more numbers, each at least 1'),
    (dict(cells=(3,)), 'numbers, each below 3'),
    (dict(cells=(-float('inf'),)), 'numbers, each below 3'),
    (dict(widths=[3]), 'a tuple of one or more numbers, each at least 1'),
    (dict(width='4'), 'in [2, 8]'),
    (dict(kind='c'), 'a or b'),
    (dict(mode=''), 'one of x, y, z'),
    (dict(stream=True), 'False: nothing is averaged'),
    (dict(ema_decay=0.9), 'None: nothing is averaged'),
  )
  def test_refuses(self, fields, allowed):
    ((name, value),) = fields.items()
    message = f'--config.{name}={value} is not allowed: must be {allowed}.'
    with self.assertRaisesWithLiteralMatch(ConfigError, message):
      Checked(**fields)


class TracedTest(parameterized.TestCase):
  @parameterized.parameters(('lr', (1e-3, 3e-2)), ('weight_decay', (0.0, 0.5)))
  def test_a_vmapped_sweep_equals_single_runs(self, field, values):
    arrays = softmax_regression.build(CONFIG).train_data.load().data
    run = lambda value: train(traced(CONFIG, **{field: value}), arrays)
    many = jax.jit(jax.vmap(run))(jnp.array(values))
    for i, value in enumerate(values):
      one = jax.jit(train, static_argnums=0)(
        dataclasses.replace(CONFIG, **{field: value}), arrays
      )
      # Five Adam steps of at most 0.03 in float32, losses of order 5 x 16 x 2.3.
      chex.assert_trees_all_close(
        jax.tree.map(lambda x, i=i: x[i], many), one, atol=5e-5, rtol=1e-5
      )
    self.assertGreater(abs(float(many[1][0] - many[1][1])), 1e-3)

  def test_skips_validation_and_leaves_the_original(self):
    changed = traced(CONFIG, lr=jnp.array(-1.0))
    self.assertEqual(float(changed.lr), -1.0)
    self.assertEqual((CONFIG.lr, changed.num_steps), (1e-3, 5))
    self.assertIsInstance(changed, softmax_regression.Config)

  def test_unknown_field_is_named(self):
    with self.assertRaisesRegex(ConfigError, "Config has no field 'learning_rate'"):
      traced(CONFIG, learning_rate=0.1)


if __name__ == '__main__':
  absltest.main()
