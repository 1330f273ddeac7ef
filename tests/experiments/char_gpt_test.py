"""char_gpt: its loss is that of the whole text, its samples come from the cache."""

import dataclasses
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data import characters
from dlx.data.windows import AllWindows
from dlx.errors import ConfigError
from dlx.models.gpt import GPT
from experiments import char_gpt

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

    model = GPT(96, 16, 1, 2, 8, use_bias=False)
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
