"""char_gpt: its loss is that of the whole text, its samples come from the cache."""

import dataclasses
import functools
import math
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import config_json
from dlx.config import traced
from dlx.data.batches.windows import AllWindows
from dlx.data.sets import characters
from dlx.errors import ConfigError
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT
from dlx.run import sharding
from dlx.state import leaves_by_path
from experiments.transformers import char_gpt

SMALL = char_gpt.Config(
  num_layers=1, num_heads=2, width=8, context=16, sample_length=20, eval_batch_size=7
)


class CharGPTTest(parameterized.TestCase):
  def test_evaluation_is_the_mean_over_every_character(self):
    built = char_gpt.build(SMALL)
    state = jax.jit(built.init)(jax.random.key(0))
    evaluation = built.evals['validation']
    self.assertIsInstance(evaluation.data, AllWindows)
    text = np.random.default_rng(0).integers(0, 96, 150).astype(np.uint8)
    step = jax.jit(
      lambda i: evaluation.step(state, evaluation.data.get({'token': text}, i))
    )
    count = evaluation.data.num_batches({'token': text})
    self.assertEqual(count, 2)  # 149 targets: 10 windows, the last with 5 of its own.
    sums = jax.tree.map(lambda *x: sum(x), *[step(i) for i in range(count)])
    found = evaluation.summarize(sums)

    model = GPT(96, 16, 1, BlockConfig(width=8, num_heads=2, use_bias=False))
    losses = []
    for start in [*range(0, 144, 16), 133]:
      window = jnp.asarray(text[start : start + 17], jnp.int32)
      logits = model.apply({'params': state.params}, window[None, :-1], train=False)
      log_probs = jax.nn.log_softmax(logits[0])
      losses.append(-np.asarray(log_probs)[np.arange(16), window[1:]])
    losses[-1] = losses[-1][-5:]
    # A mean of 149 numbers near 4.6.
    mean = np.concatenate(losses).mean()
    self.assertAlmostEqual(float(found['loss']), mean, places=4)
    self.assertAlmostEqual(float(found['perplexity']), np.exp(mean), delta=0.02)
    self.assertAlmostEqual(
      float(found['bits_per_character']), mean / np.log(2), places=4
    )

  def test_samples_are_generated_with_the_cache(self):
    built = char_gpt.build(dataclasses.replace(SMALL, temperature=0.0))
    state = jax.jit(built.init)(jax.random.key(0))
    batch = {'token': jnp.arange(34).reshape(2, 17)}
    with mock.patch.object(GPT, '__call__', side_effect=AssertionError):
      tree = jax.jit(built.figures['sample'].compute)(state, jax.random.key(0), batch)
    self.assertEqual(tree['new'].shape, (2, 20))
    tree = jax.tree.map(np.array, tree)
    figure = built.figures['sample'].draw(tree)
    shown = figure.texts[0].get_text()
    new = characters.decode(tree['new'][0], characters.PRINTABLE).split('\n')[0]
    self.assertIn('\u2503' + new[:10].replace('$', r'\$'), shown)

  def test_options_of_generate_reach_the_draws(self):
    built = char_gpt.build(SMALL)
    state = jax.jit(built.init)(jax.random.key(0))
    generate = built.functions['generate']
    self.assertEqual(
      dict(generate.options),
      {'num_tokens': 20, 'top_k': None, 'top_p': None, 'min_p': None},
    )
    inputs = lambda temperature: {
      'prompt': jnp.arange(3)[None],
      'seed': jnp.zeros(1, jnp.uint32),
      'temperature': jnp.full(1, temperature, jnp.float32),
    }

    @functools.partial(jax.jit, static_argnames=('top_p', 'min_p'))
    def new(temperature, **options):
      call = generate.call(state, inputs(temperature), num_tokens=8, **options)
      return call['tokens']

    likeliest = new(0.0).tolist()
    self.assertNotEqual(new(9.0).tolist(), likeliest)
    self.assertEqual(new(9.0, top_p=1e-6).tolist(), likeliest)
    self.assertEqual(new(9.0, min_p=1.0).tolist(), likeliest)
    for option in ({'top_p': 0.0}, {'min_p': 2.0}):
      with self.assertRaisesRegex(ConfigError, 'is not allowed: must be in'):
        jax.eval_shape(lambda o=option: generate.call(state, inputs(1.0), **o))

  def test_attention_maps_are_drawn(self):
    built = char_gpt.build(SMALL)
    state = jax.jit(built.init)(jax.random.key(0))
    batch = {'token': jnp.arange(34).reshape(2, 17)}
    tree = jax.jit(built.figures['attention'].compute)(state, jax.random.key(0), batch)
    self.assertEqual(tree['weights'].shape, (1, 2, 16, 16))
    figure = built.figures['attention'].draw(jax.tree.map(np.array, tree))
    self.assertLen(figure.axes, 2)

  def test_decay_spares_norms_but_not_stacked_kernels(self):
    built = char_gpt.build(
      dataclasses.replace(SMALL, lr=1e-3, warmup_fraction=0.0, weight_decay=10.0)
    )
    state = jax.jit(built.init)(jax.random.key(0))
    batch = {'token': jnp.full((12, 17), 5)}
    new, _ = jax.jit(built.train_step)(state, batch)
    # Adam's first step is lr = 1e-3 times a sign, decay lr * 10 times the weight. Norms
    # start at 1: with decay they would move by 0.01.
    block = lambda s: s.params['transformer']['blocks']
    moved = np.abs(block(new)['norm_mlp']['scale'] - block(state)['norm_mlp']['scale'])
    self.assertLess(moved.max(), 1.1e-3)
    # Position embeddings are N(0, 0.02^2): decay moves the largest by 0.0005 more.
    table = lambda s: s.params['position_embedding']
    self.assertGreater(np.abs(table(new) - table(state)).max(), 1.05e-3)

  @parameterized.parameters(
    ('cpu', 808_064),
    ('gpu', 10_756_992),
    ('124m', 85_838_592),
    ('300m', 302_171_136),
    ('1b', 1_057_327_104),
    ('3b', 3_020_479_488),
    ('7b', 7_047_286_784),
  )
  def test_sizes_are_those_of_the_docstring(self, size, count):
    config = char_gpt.values(char_gpt.Config(size=size))
    built = char_gpt.build(char_gpt.Config(size=size))
    params = jax.eval_shape(lambda: built.init(jax.random.key(0))).params
    self.assertEqual(sum(x.size for x in jax.tree.leaves(params)), count)
    [row] = [x for x in char_gpt.__doc__.splitlines() if x.startswith(f'  {size} ')]
    keys = config.num_kv_heads or config.num_heads
    fields = [config.num_layers, config.width, f'{config.num_heads} / {keys}']
    fields += [config.context, config.batch_size, f'{count:,}']
    self.assertEqual(row.split(), [size, *' '.join(map(str, fields)).split()])
    # 6 N and attention of all pairs; positions and norms are in N and cost nothing.
    tokens = config.batch_size * config.context
    attention = 12 * config.num_layers * config.width * config.context
    formula = tokens * (6 * count + attention)
    self.assertAlmostEqual(built.flops_per_step / formula, 1, delta=0.02)

  def test_the_size_gives_what_the_config_does_not(self):
    self.assertEqual(
      set(char_gpt.SIZES), {'cpu', 'gpu', '124m', '300m', '1b', '3b', '7b'}
    )
    given = dict(num_layers=3, lr=0.0625, remat='off')
    config = char_gpt.Config(size='1b', **given)
    self.assertEqual(config.width, None)
    wanted = char_gpt.SIZES['1b']._replace(**given)
    self.assertEqual(char_gpt.values(config), wanted)
    sized = char_gpt.sized(config)
    self.assertEqual({k: getattr(sized, k) for k in wanted._fields}, wanted._asdict())
    others = {f.name for f in dataclasses.fields(config)} - set(wanted._fields)
    for name in others:
      self.assertEqual(getattr(sized, name), getattr(config, name), name)
    self.assertEqual(char_gpt.sized(sized), sized)
    # What every run before sizes was.
    default = char_gpt.values(char_gpt.Config())
    self.assertEqual(
      (default.num_layers, default.num_heads, default.width), (4, 4, 128)
    )
    self.assertEqual((default.context, default.batch_size, default.lr), (64, 12, 4e-3))

  def test_what_launchers_record_says_what_was_used(self):
    config = char_gpt.Config(size='1b', lr=0.0625).resolved()
    written = config_json.config_to_json(config)
    wanted = char_gpt.SIZES['1b']._replace(lr=0.0625)._asdict()
    self.assertEqual({name: written[name] for name in wanted}, wanted)
    # Another size by default would change nothing of what is read again.
    self.assertEqual(config_json.config_from_json(char_gpt.Config, written), config)

  def test_sized_takes_a_swept_rate(self):
    def rate(lr):
      return char_gpt.sized(traced(char_gpt.Config(), lr=lr)).lr

    rates = jnp.array([1e-3, 2e-3])
    np.testing.assert_array_equal(jax.vmap(rate)(rates), rates)

  def test_the_whole_state_has_a_place(self):
    built = char_gpt.build(char_gpt.Config(size='1b', ema_decay=0.9, use_bias=True))
    mesh = jax.sharding.AbstractMesh((4, 4), ('fsdp', 'tensor'))
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    places = sharding.state_shardings(mesh, state, built.placement)
    part = lambda x, s: math.prod(s.shard_shape(x.shape)) / x.size
    leaves = leaves_by_path(state._replace(rng=()))
    for path, place in leaves_by_path(places._replace(rng=())).items():
      # Kernels and embeddings, their moments and averages.
      if leaves[path].size > 10**7 or path.endswith('embedding'):
        self.assertEqual(part(leaves[path], place), 1 / 16, path)
    total = lambda count: sum(count(p) for p in leaves)
    held = total(lambda p: leaves[p].size * part(leaves[p], leaves_by_path(places)[p]))
    # Norms and positions are on all devices: next to nothing.
    self.assertLess(held / total(lambda p: leaves[p].size), 1 / 16 * 1.01)

  def test_windows_lie_along_the_tokens_where_an_axis_divides_them(self):
    built = char_gpt.build(char_gpt.Config(batch_size=8))
    mesh = jax.sharding.AbstractMesh((2, 2, 4), ('data', 'fsdp', 'sequence'))
    data = built.evals['validation'].data
    found = sharding.batch_shardings(mesh, data)
    self.assertEqual(found['counts'].shard_shape((256, 64)), (64, 16))
    self.assertEqual(found['token'].shard_shape((256, 65)), (64, 65))
    found = sharding.batch_shardings(mesh, built.train_data)
    self.assertEqual(found['token'].shard_shape((8, 65)), (2, 65))

  @parameterized.parameters(
    ('size', '2b', 'one of cpu, gpu, 124m, 300m, 1b, 3b, 7b'),
    ('num_kv_heads', 3, 'a divisor of num_heads=2'),
    ('positions', 'sine', 'one of learned, sinusoidal'),
    ('remat', 'all', 'one of off, dots, full'),
    ('batch_size', 0, 'at least 1'),
    ('micro_batches', 5, 'a divisor of batch_size=12'),
    ('compute_dtype', 'float8', 'one of float32'),
    ('pad_vocabulary_to', 0, 'at least 1'),
    ('num_heads', 3, 'a divisor of width=8'),
    ('context', 1, 'at least 2'),
    ('dropout', 1.0, r'in \[0, 1\)'),
    ('warmup_fraction', 1.5, r'in \[0, 1\]'),
    ('temperature', -1.0, 'at least 0'),
  )
  def test_refuses(self, field, value, allowed):
    message = f'--config.{field}={value} is not allowed: must be {allowed}'
    with self.assertRaisesRegex(ConfigError, message):
      dataclasses.replace(SMALL, **{field: value})

  def test_rotary_positions_want_even_heads(self):
    with self.assertRaisesRegex(
      ConfigError, 'positions=rotary .* another one than rotary where width=6'
    ):
      dataclasses.replace(SMALL, width=6, positions='rotary')

  @parameterized.parameters(
    ('dataset', 'mnist', 'must be one of pydoc'),
    ('top_k', 97, r'--config.top_k=97 .* in \[1, 96\]'),
    ('stream', True, '--config.stream=True is not allowed'),
    ('context', 36000, 'must be below 36000'),
  )
  def test_build_refuses(self, field, value, allowed):
    with self.assertRaisesRegex(ConfigError, allowed):
      char_gpt.build(dataclasses.replace(SMALL, **{field: value}))


if __name__ == '__main__':
  absltest.main()
