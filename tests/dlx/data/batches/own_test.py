"""Data of the user's: drawn by a function, fixed arrays, map-style sets."""

import json
import pathlib
import sys

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.batches.generated import fixed, generated
from dlx.data.batches.items import ItemsInOrder, ShuffledItems, items
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.streamed import ShuffledStream, batches
from dlx.data.batches.zipped import Zipped
from dlx.data.dataset import ROWS
from dlx.data.sources import of_arrays, read
from dlx.errors import ConfigError, DataError
from dlx.experiment import Eval, Experiment, Overfit
from dlx.metrics import mean
from dlx.state import create
from launch import checks, train
from tests.dlx.run import kinds

ALL = slice(None)


def bits(key):
  return {'x': jax.random.bits(key), 'y': jnp.zeros(2)}


def example(seed, epoch, place):
  key = jax.random.fold_in(jax.random.key(seed), epoch)
  return int(jax.random.bits(jax.random.fold_in(key, place)))


def at(data, step):
  return jax.jit(data.get)(data.load().data, jnp.int32(step))


class GeneratedTest(parameterized.TestCase):
  def test_example_i_is_a_function_of_seed_and_i(self):
    wide, narrow = generated(bits, 4, 7), generated(bits, 2, 7)
    wanted = [example(7, 0, i) for i in (4, 5, 6, 7)]
    np.testing.assert_array_equal(at(wide, 1)['x'], wanted)
    halves = [at(narrow, step)['x'] for step in (2, 3)]
    np.testing.assert_array_equal(np.concatenate(halves), wanted)
    traced = jax.jit(lambda seed: generated(bits, 4, seed).get({}, 1)['x'])
    np.testing.assert_array_equal(traced(7), wanted)
    self.assertNotEqual(int(at(generated(bits, 4, 8), 1)['x'][0]), wanted[0])

  def test_numbers_beyond_31_bits(self):
    # 2**30 * 4 + 0..3 = 2 * (2**31 - 1) + 2..5.
    found = at(generated(bits, 4, 7), 2**30)['x']
    np.testing.assert_array_equal(found, [example(7, 2, i) for i in (2, 3, 4, 5)])
    # (2**30 - 1) * 2 + 0, 1 = 2**31 - 2, the last of epoch 0, and 0 of epoch 1.
    found = at(generated(bits, 2, 7), 2**30 - 1)['x']
    wanted = [example(7, 0, 2**31 - 2), example(7, 1, 0)]
    np.testing.assert_array_equal(found, wanted)

  def test_a_pass_counts_every_example_once(self):
    data = generated(bits, 4, 7, size=5)
    self.assertEqual(data.num_batches({}), 2)
    first, last = at(data, 0), at(data, 1)
    np.testing.assert_array_equal(first['weight'], [1, 1, 1, 1])
    np.testing.assert_array_equal(last['weight'], [1, 0, 0, 0])
    np.testing.assert_array_equal(last['x'], 4 * [example(7, 0, 4)])
    chex.assert_trees_all_equal_shapes_and_dtypes(dict(first), dict(data.shapes[0]))
    self.assertIsNone(generated(bits, 4, 7).num_batches({}))

  def test_refuses(self):
    for fn, size, message in (
      (lambda key: jnp.zeros(3), None, 'fn gives ShapeDtypeStruct: must give'),
      (bits, 0, 'size=0 is not allowed'),
      (lambda key: {'weight': jnp.zeros(())}, 3, 'field weight is not allowed'),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        generated(fn, 4, 7, size=size)
    with self.assertRaisesRegex(ConfigError, 'batch_size=0'):
      generated(bits, 0, 7)


class FixedTest(parameterized.TestCase):
  def test_the_same_whole_batch_at_every_step(self):
    data = fixed({'x': np.arange(6.0).reshape(3, 2), 'edge': [[0, 1]]})
    for step in (0, 9):
      found = at(data, step)
      np.testing.assert_array_equal(found['x'], [[0, 1], [2, 3], [4, 5]])
      chex.assert_trees_all_equal_shapes_and_dtypes(dict(found), dict(data.shapes[0]))
    self.assertEqual((found['x'].dtype, found['edge'].dtype), (jnp.float32, jnp.int32))
    self.assertEqual((data.size, data.num_batches({})), (3, 1))
    self.assertNotIn(ROWS, data.placement.values())
    weighted = fixed({'x': np.zeros((3, 2))}, weight=True)
    np.testing.assert_array_equal(at(weighted, 0)['weight'], [1, 1, 1])

  def test_other_arrays_have_another_origin(self):
    origin = lambda **arrays: fixed(arrays).load().origin
    first = origin(x=[1.0, 2.0])
    self.assertEqual(first, origin(x=[1.0, 2.0]))
    self.assertNotEqual(first, origin(x=[1.0, 3.0]))
    self.assertNotEqual(first, origin(y=[1.0, 2.0]))
    self.assertNotEqual(first['sha256'], origin(x=[[1.0, 2.0]])['sha256'])

  def test_refuses(self):
    for value, message in (
      (['a', 'b'], "field 'x'.*array of numbers"),
      ([None], "field 'x'.*array of numbers"),
      ([[1], [1, 2]], "field 'x'.*array of numbers"),
      ([2**31], "field 'x': expected int32, found int64"),
    ):
      with self.assertRaisesRegex(DataError, message):
        fixed({'x': value})
    with self.assertRaisesRegex(ConfigError, 'weight=True is not allowed'):
      fixed({'weight': [1.0]}, weight=True)
    with self.assertRaisesRegex(ConfigError, 'weight=True is not allowed'):
      fixed({}, weight=True)


class OfArraysTest(absltest.TestCase):
  def test_is_a_source_like_any(self):
    source = of_arrays({'x': np.arange(5), 'y': np.ones((5, 2))}, 'mine')
    self.assertEqual((source.size, source.shapes['y'].shape), (5, (2,)))
    one, two = InOrder(source, 5), Shuffled(source, 5, 3)
    np.testing.assert_array_equal(at(one, 0)['x'], np.arange(5))
    np.testing.assert_array_equal(np.sort(at(two, 0)['x']), np.arange(5))
    self.assertEqual(read(source).origin['kind'], 'own')
    for arrays in ({'x': [1], 'y': [1, 2]}, {'x': 1}, {}, {'x': []}):
      with self.assertRaisesRegex(DataError, 'must have the same number'):
        of_arrays(arrays)


class Squares:
  """A map-style set of (image, number): as torch's, without torch."""

  def __init__(self, size=5, make=None):
    self.size, self.make, self.asked = size, make, []

  def __len__(self):
    return self.size

  def __getitem__(self, i):
    assert type(i) is int and 0 <= i < self.size, i
    self.asked.append(i)
    if self.make is not None:
      return self.make(i)
    return np.full((2, 3), i, np.uint8), i * i


NAMES = ('image', 'label')


class ItemsTest(parameterized.TestCase):
  def test_same_order_as_arrays(self):
    number = np.arange(5, dtype=np.int32)
    image = np.tile(number[:, None, None], (1, 2, 3)).astype(np.uint8)
    arrays = of_arrays({'image': image, 'label': number**2})
    wanted = ShuffledStream(arrays, 4, 3)
    found = items(Squares(), 4, 3, fields=NAMES)
    assert isinstance(found, ShuffledItems)
    data, there = found.load().data, wanted.load().data
    self.assertEqual(found.shapes, wanted.shapes)
    self.assertIsNone(found.num_batches(data))
    for step in (0, 1, 2, 2**31 - 1):
      for rows in (ALL, slice(1, 3), slice(2, 2)):
        batch = found.get(data, step, rows)
        chex.assert_trees_all_equal(batch, wanted.get(there, step, rows))

  def test_a_pass_by_hand_reads_each_once(self):
    data = Squares()
    found = items(data, 3, fields=NAMES)
    assert isinstance(found, ItemsInOrder)
    self.assertEqual(data.asked, [0])  # For the shapes; nothing else is read.
    self.assertEqual(found.num_batches(data), 2)
    data.asked.clear()
    with batches(found, data, 0, None, ALL, num_workers=0) as got:
      first, last = got
    np.testing.assert_array_equal(first['label'], [0, 1, 4])
    np.testing.assert_array_equal(last['label'], [9, 16, 16])
    np.testing.assert_array_equal(last['weight'], [1, 1, 0])
    self.assertEqual(sorted(data.asked), [0, 1, 2, 3, 4])

  @parameterized.parameters(
    (lambda i: {'x': i}, None, {'x': ((), 'int32')}),
    (lambda i: {'x': i, 'name': 'a'}, ('x',), {'x': ((), 'int32')}),
    (lambda i: [0.5, True], ('x', 'y'), {'x': ((), 'float32'), 'y': ((), 'bool')}),
    (lambda i: np.zeros((2, 3)), ('x',), {'x': ((2, 3), 'float32')}),
    (lambda i: {'x': [1.0, 2.0]}, None, {'x': ((2,), 'float32')}),
  )
  def test_kinds_of_examples(self, make, fields, wanted):
    found = items(Squares(make=make), 4, fields=fields)
    batch = found.get(found.load().data, 0, ALL)
    batch.pop('weight')
    shape = lambda x: (x.shape[1:], str(x.dtype))
    self.assertEqual({name: shape(x) for name, x in batch.items()}, wanted)

  def test_pictures(self):
    from PIL import Image

    picture = lambda i: {'image': Image.new('RGB', (3, 2), (i, 0, 9))}
    found = items(Squares(make=picture), 4)
    batch = found.get(found.load().data, 0, slice(1, 2))
    self.assertEqual(batch['image'].shape, (1, 2, 3, 3))
    np.testing.assert_array_equal(batch['image'][0, 1, 2], [1, 0, 9])

  def test_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    own = torch.utils.data.TensorDataset(torch.eye(5), torch.arange(5))
    found = items(torch.utils.data.Subset(own, [4, 2]), 2, fields=('x', 'y'))
    batch = found.get(found.load().data, 0, ALL)
    np.testing.assert_array_equal(batch['y'], [4, 2])
    np.testing.assert_array_equal(batch['x'], np.eye(5, dtype=np.float32)[[4, 2]])

  def test_opened_on_load(self):
    shapes = {'x': jax.ShapeDtypeStruct((), np.int32)}
    asked = []

    def opened(data_dir):
      asked.append(data_dir)
      return [{'x': 3}, {'x': 4}]

    found = items(opened, 2, shapes=shapes)
    self.assertEmpty(asked)
    data = found.load('folder').data
    self.assertEqual(asked, ['folder'])
    np.testing.assert_array_equal(found.get(data, 0, ALL)['x'], [3, 4])
    with self.assertRaisesRegex(ConfigError, 'shapes=None is not allowed'):
      items(opened, 2)

  def test_refuses(self):
    uneven = lambda i: {'x': np.zeros(2 + (i == 3))}
    later = lambda i: {'x': 1} if i < 3 else {'y': 1}
    kind = lambda i: {'x': 1} if i < 3 else {'x': 0.5}
    for data, fields, message in (
      (iter([1]), None, 'a list_iterator is no map-style data set'),
      ({'train': []}, None, 'a dict is no map-style data set: .*of_arrays'),
      ([], None, '0 examples'),
      ([(1, 2)], None, 'example 0 is a tuple: name its parts, e.g. fields='),
      ([(1, 2)], ('x',), 'example 0 has 2 parts: must be 1, x'),
      ([{}], None, 'has no fields'),
      ([{'x': 'text'}], None, "example 0: field 'x': expected an array of numbers"),
      (Squares(make=uneven), None, r'example 3: .* shape \(2,\), found \(3,\)'),
      (Squares(make=later), None, 'example 3: fields y: must be x'),
      (Squares(make=kind), None, 'example 3: .* expected int32, found float64'),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        found = items(data, 2, fields=fields)
        found.load()

  def test_what_changes_when_it_is_read_again_is_refused(self):
    rng = np.random.default_rng(0)
    with self.assertRaisesRegex(DataError, 'is another when it is read again'):
      items(Squares(make=lambda i: {'x': rng.random()}), 2).load()


def learner(config, data, evals):
  """Pulls a number towards the mean of what it reads; of no data towards noise."""

  def train_step(state, batch):
    noise = jax.random.normal(jax.random.fold_in(state.rng, state.step))
    target = sum((x.astype(jnp.float32).mean() for x in batch.values()), noise)
    loss = kinds.one((target - state.params) ** 2)
    params = state.params + 0.1 * (target - state.params)
    return state._replace(params=params, step=state.step + 1), {'loss': loss}

  def evaluate(state, batch):
    del state
    weight = batch.get('weight', jnp.ones(1))
    return {
      'loss': mean(jnp.ones_like(weight), weight),
      'rows': kinds.one(weight.sum()),
    }

  init = lambda key: create(jnp.zeros(()), (), key)
  parts = {name: Eval(evaluate, x) for name, x in evals.items()}
  return Experiment(init, train_step, data, parts, overfit=None)


def streams(config):
  """Training and evaluation data by kind."""
  b = config.batch_size
  normal = lambda key: {'x': jax.random.normal(key, (3,))}
  arrays = {'x': np.arange(6.0), 'y': np.arange(4)}
  nothing = lambda key: {}
  both = Zipped({'inside': generated(normal, b, 1), 'edge': fixed(arrays)})
  ours = Squares(11)
  return {
    'generated': (generated(normal, b, 1), generated(normal, b, 2, size=11)),
    'nothing': (generated(nothing, b, 1), generated(nothing, b, 2, size=11)),
    'fixed_nothing': (fixed({}), fixed({})),
    'zipped': (both, fixed({'x': np.arange(11)}, weight=True)),
    'items': (
      items(ours, b, 1, fields=NAMES, workers=0),
      items(ours, b, fields=NAMES, workers=0),
    ),
  }


class RunTest(parameterized.TestCase):
  @parameterized.parameters(*streams(kinds.Small()))
  def test_a_killed_run_goes_on_to_the_same_bits(self, kind):
    def build(config):
      data, finite = streams(config)[kind]
      return learner(config, data, {'val': finite})

    config = kinds.Small(num_steps=7, eval_every_steps=3)
    folder = pathlib.Path(self.create_tempdir().full_path)
    result = checks.restarted(build, config, folder)
    metrics = result['metrics']
    rows = 1 if kind == 'fixed_nothing' else 11
    # Of the pass: eight rows and then three, or all at once.
    batches_of_pass = 2 if kind in ('items', 'generated', 'nothing') else 1
    self.assertAlmostEqual(metrics['val/rows'], rows / batches_of_pass, places=5)
    self.assertEqual(metrics['val/loss'], 1)

  def test_overfitting_is_looked_for_with_streamed_data_too(self):
    def build(config):
      data, finite = streams(config)['items']
      made = learner(config, data, {'val': finite})
      return made._replace(overfit=Overfit(above=1e9))

    self.assertLess(checks.overfitted(build, kinds.Small(num_steps=1)), 1e9)


FORK = '''"""Labels of squares, of a set of my own.

  python -m launch.train --exp={name}.py
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from dlx import experiment, state
from dlx.data.batches.items import items
from dlx.metrics import mean


class Mine:
  def __len__(self):
    return 9

  def __getitem__(self, i):
    return {{'x': np.float32(i), 'label': i % 3}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 4  # Steps of the whole run.


def build(config):
  def train_step(state, batch):
    new = state.params + batch['x'].mean()
    return state._replace(params=new, step=state.step + 1), {{'loss': mean(batch['x'])}}

  return experiment.Experiment(
    lambda key: state.create(jnp.zeros(()), (), key),
    train_step,
    items(Mine(), config.batch_size, config.seed, workers=config.stream_workers),
    {{'all': experiment.Eval(lambda s, b: {{'x': mean(b['x'], b['weight'])}},
      items(Mine(), 4, workers=config.stream_workers))}},
    overfit=None,
  )
'''


class ForkTest(absltest.TestCase):
  def test_a_set_of_the_fork_reaches_the_workers(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    path = folder / 'my_items_of_a_test.py'
    path.write_text(FORK.format(name=path.stem), encoding='utf-8')
    before = list(sys.path)
    self.addCleanup(lambda: sys.path.__setitem__(slice(None), before))
    self.addCleanup(lambda: sys.modules.pop(path.stem, None))
    for workers in (0, 1):
      flags = [
        f'--workdir={folder / str(workers)}',
        f'--config.stream_workers={workers}',
      ]
      self.assertEqual(train.main(['train', f'--exp={path}', *flags]), 0)
    found = [json.loads((folder / str(n) / 'result.json').read_text()) for n in (0, 1)]
    self.assertEqual(found[0]['fingerprint'], found[1]['fingerprint'])
    self.assertEqual(found[0]['metrics']['all/x'], 4)  # The mean of 0 to 8.
    self.assertEqual(found[0]['dataset']['train']['kind'], 'own')


if __name__ == '__main__':
  absltest.main()
