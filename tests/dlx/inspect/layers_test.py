"""The table by layer: by hand for one net, and its totals for every experiment."""

from absl.testing import absltest, parameterized
import jax

from dlx.errors import ConfigError
from dlx.inspect import layers, sizes
from dlx.run import describe, experiments_by_name, flops, sharding
from tests.every_experiment.small import load, small


def built(name, **fields):
  return load(name).build(small(name, **fields).resolved())


class HandTest(absltest.TestCase):
  def test_a_small_net(self):
    found = layers.table(built('cnn'), batch=3)
    rows = {row.name: row for row in found.rows}
    names = [row.name for row in found.rows]
    self.assertEqual(
      names,
      [
        'conv_0',
        'norm_0',
        'max_pool',
        'conv_1',
        'norm_1',
        'max_pool',
        'hidden',
        'head',
      ],
    )
    self.assertEqual(found.axes, ('height', 'width'))
    self.assertEqual(found.input, {'image': (3, 8, 8, 1)})
    # 8 x 8 -> 4 channels -> 4 x 4 -> 8 channels -> 2 x 2 -> 16 units -> 10 classes.
    texts = ('conv:3,features=4,padding=same,bias=false', 'pool:2')
    texts += ('conv:3,features=8,padding=same,bias=false', 'pool:2', 'dense:16')
    stack = [sizes.parse_layer(text) for text in (*texts, 'dense:10')]
    costs = sizes.stack(stack, (8, 8, 1))
    without_norms = [row for row in found.rows if not row.name.startswith('norm')]
    for row, cost in zip(without_norms, costs, strict=True):
      self.assertEqual(row.output, (3, *cost.output))
      self.assertEqual(row.parameters, cost.parameters)
      self.assertEqual(row.parameter_bytes, 4 * cost.parameters)
      self.assertEqual(row.flops, 3 * cost.flops)
      self.assertEqual(row.reach, cost.reach or (None, None))
    self.assertEqual((rows['norm_1'].parameters, rows['norm_1'].state), (16, 16))
    self.assertEqual(rows['conv_0'].activation_bytes, 3 * 8 * 8 * 4 * 4)

  def test_dtypes_count_in_bytes(self):
    half = layers.table(built('cnn', compute_dtype='bfloat16'))
    full = layers.table(built('cnn'))
    self.assertEqual(half.rows[0].activation_bytes * 2, full.rows[0].activation_bytes)
    self.assertEqual(half.rows[0].parameter_bytes, full.rows[0].parameter_bytes)

  def test_an_average_is_its_parameter(self):
    with_average = layers.table(built('cnn', ema_decay=0.9))
    self.assertEqual(with_average.rows, layers.table(built('cnn')).rows)

  def test_what_one_player_does_not_use(self):
    found = layers.table(built('dcgan'), 'sample')
    self.assertEqual([row.name for row in found.rows if row.parameters][0], 'dense')
    self.assertEqual(found.rows[-1].name, layers.UNUSED)
    self.assertGreater(found.rows[-1].parameters, 0)  # Of the other player.

  def test_a_loop_over_layers_counts_each(self):
    one, three = (layers.table(built('vit', num_layers=n), batch=2) for n in (1, 3))
    own = lambda found: {
      row.name: row for row in found.rows if row.name.startswith('transformer/')
    }
    self.assertEqual(list(own(one)), list(own(three)))
    for name, row in own(one).items():
      self.assertEqual(own(three)[name].flops, 3 * row.flops)
      self.assertEqual(own(three)[name].parameters, 3 * row.parameters)

  def test_sizes_that_are_left_open(self):
    found = layers.table(built('sst2'), sizes={'length': 11})
    self.assertEqual(found.input, {'tokens': (1, 11)})
    with self.assertRaisesRegex(ConfigError, 'nodes is not allowed.*length'):
      layers.table(built('sst2'), sizes={'nodes': 3})
    # Else as in a batch of training.
    self.assertEqual(layers.table(built('adding')).input, {'x': (1, 8, 2)})
    gpt = built('char_gpt')
    window = gpt.train_data.shapes[0]['token'].shape[1]
    self.assertEqual(layers.table(gpt).input, {'tokens': (1, window)})
    with self.assertRaisesRegex(ConfigError, 'the model says: 99 tokens'):
      layers.table(gpt, sizes={'length': 100})

  def test_functions_that_are_not_there(self):
    with self.assertRaisesRegex(ConfigError, 'must be one of predict'):
      layers.table(built('cnn'), 'generate')
    with self.assertRaisesRegex(ConfigError, 'states no function'):
      layers.table(built('cnn')._replace(functions={}))

  def test_scopes(self):
    for scope, path in (
      ('CNN/CNN.forward/conv_0', 'CNN/conv_0'),
      ('vmap(jvp(CNN))/CNN.forward/conv_0', 'CNN/conv_0'),
      ('transpose(jvp(A))/b', 'A/b'),
      ('', ''),
    ):
      self.assertEqual(layers.path_of(scope), path)


class EveryExperimentTest(parameterized.TestCase):
  @parameterized.parameters(*experiments_by_name.names())
  def test_totals_are_those_of_describe_and_of_the_count(self, name):
    experiment = built(name)
    found = layers.table(experiment, batch=2)
    totals = describe.describe(experiment, sharding.make_mesh(None)).totals
    of = lambda part: totals[part].count if part in totals else 0
    self.assertEqual(found.total('parameters'), of('parameters'))
    self.assertEqual(
      found.total('parameter_bytes'),
      totals['parameters'].bytes if 'parameters' in totals else 0,
    )
    self.assertEqual(found.total('state'), of('model state'))
    function = experiment.functions[found.function]
    inputs = {
      k: jax.ShapeDtypeStruct(shape, function.inputs[k].dtype)
      for k, shape in found.input.items()
    }
    state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    call = lambda s, x: function.call(s, x, **function.options)
    counted = flops.count(jax.make_jaxpr(call)(state, inputs))
    self.assertEqual(found.total('flops'), counted.total)
    self.assertTrue(all(row.name for row in found.rows), found.rows)


if __name__ == '__main__':
  absltest.main()
