"""ddpm: averaged parameters, noise by example, micro-batches, pictures, refusals."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.figures import image_grid
from dlx.models.unet import UNetConfig
from dlx.tasks.diffusion import SamplerConfig, TaskConfig
from dlx.tasks.judge import Judge
from experiments.diffusion import ddpm


def tiny(judge_steps=300, **fields):
  small = {
    'unet': UNetConfig(channels=(8,)),
    'diffusion': TaskConfig(num_steps=50),
    'sampler': SamplerConfig(num_steps=3),
    'judge': Judge.Config(num_samples=20, num_steps=judge_steps),
    'batch_size': 8,
    'eval_batch_size': 4,
  }
  return ddpm.Config(**{**small, **fields})


def drawn(built):
  """A state whose networks answer something, without a compile of `init`."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(built.init, jax.random.key(0))
  draw = lambda x: jnp.asarray(
    np.abs(rng.normal(size=x.shape)) * 0.1 * jnp.issubdtype(x.dtype, jnp.floating),
    x.dtype,
  )
  state = jax.tree.map(draw, shapes._replace(rng=()))
  return state._replace(rng=jax.random.key(0))


def images(n, first=0):
  rng = np.random.default_rng(first)
  image = rng.integers(0, 17, (first + n, 8, 8, 1)).astype(np.uint8)
  return {
    'image': jnp.asarray(image[first:]),
    'label': jnp.arange(first, first + n) % 10,
    'index': jnp.arange(first, first + n),
    'weight': jnp.ones(n),
  }


def part(batch, rows):
  return {name: x[rows] for name, x in batch.items()}


class EvaluationTest(parameterized.TestCase):
  def test_averaged_parameters_and_nothing_else_are_evaluated(self):
    built = ddpm.build(tiny())
    state, batch = drawn(built), images(4)
    for name in ('test', 'samples'):
      step = jax.jit(built.evals[name].step)
      averaged = state._replace(
        ema=state.params, params=jax.tree.map(lambda p: p * jnp.nan, state.params)
      )
      found, other = step(averaged, batch), step(state, batch)
      for x in jax.tree.leaves(found):
        self.assertTrue(np.all(np.isfinite(x)), name)
      watched = 'loss' if name == 'test' else 'fake'
      gap = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), found, other)[watched]
      self.assertGreater(max(map(float, jax.tree.leaves(gap))), 1e-3, name)

  def test_noise_belongs_to_the_example(self):
    built = ddpm.build(tiny(ema_decay=None))
    state, batch = drawn(built), images(6)
    for name in ('test', 'samples'):
      step = jax.jit(built.evals[name].step)
      whole = step(state, batch)
      parts = [step(state, part(batch, rows)) for rows in (slice(3), slice(3, 6))]
      np.testing.assert_array_equal(
        jax.tree.leaves(step(state, batch))[0], jax.tree.leaves(whole)[0]
      )
      for a, b, c in zip(*map(jax.tree.leaves, (whole, *parts))):
        # Sums in another order, behind a net of some ten layers.
        np.testing.assert_allclose(a, b + c, rtol=1e-4, atol=1e-3, err_msg=name)

  def test_samples_are_asked_for_class_after_class(self):
    for conditional in (True, False):
      built = ddpm.build(tiny(conditional=conditional))
      state = jax.eval_shape(built.init, jax.random.key(0))
      self.assertEqual('label' in state.params, conditional)
      evaluation = built.evals['samples']
      sums = jax.eval_shape(evaluation.step, state, evaluation.data.shapes[0])
      self.assertEqual('asked_class' in sums, conditional)
      self.assertEqual(evaluation.data.size, 20)


class TrainStepTest(parameterized.TestCase):
  def test_micro_batches_change_nothing(self):
    found = []
    for k in (1, 4):
      built = ddpm.build(tiny(micro_batches=k, judge_steps=0))
      state = drawn(built)
      batch = part(images(8), slice(8))
      new, sums = jax.jit(built.train_step)(state, batch)
      self.assertEqual(int(new.step), 1)
      found.append((new.params, sums))
    for a, b in zip(*map(jax.tree.leaves, found)):
      # Adam's first update is the sign of a gradient: the warm-up starts at rate 0.
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

  def test_average_follows_and_the_judge_learns_at_first(self):
    built = ddpm.build(tiny(judge_steps=1, warmup_steps=0))
    state, batch = drawn(built), images(8)
    step = jax.jit(built.train_step)
    first = step(state, batch)[0]
    second = step(first, batch)[0]
    # After step 0 the decay is 1 / 10.
    for e, p, old in zip(*map(jax.tree.leaves, (first.ema, first.params, state.ema))):
      np.testing.assert_allclose(e, 0.1 * old + 0.9 * p, rtol=1e-5, atol=1e-6)
    judges = [s.model_state['judge']['params'] for s in (state, first, second)]
    zero, one, two = (np.asarray(jax.tree.leaves(j)[1]) for j in judges)
    self.assertFalse(np.array_equal(zero, one))
    np.testing.assert_array_equal(one, two)


class FiguresTest(absltest.TestCase):
  def test_every_picture_is_drawn(self):
    built = ddpm.build(tiny(eval_batch_size=6))
    state = jax.eval_shape(built.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    expected = {'samples': 80, 'denoising': 4 * 2 * 3, 'noising': 40}
    self.assertEqual(set(built.figures), {*expected, 'signal_to_noise'})
    for name, figure in built.figures.items():
      batch = figure.data.shapes[0] if figure.data else {}
      key = jax.eval_shape(jax.random.key, 0)
      shapes = jax.eval_shape(figure.compute, state, key, batch)
      tree = jax.tree.map(lambda x: rng.uniform(-1, 1, x.shape), shapes)
      picture = figure.draw(tree)
      self.assertIsInstance(picture, type(image_grid(np.zeros((1, 2, 2, 1)))))
      self.assertLen(picture.axes, expected.get(name, 2))


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ('label_dropout', 1.0), ('warmup_steps', -1), ('compute_dtype', 'float16')
  )
  def test_impossible_values_are_refused(self, field, value):
    with self.assertRaisesRegex(ConfigError, f'--config.{field}='):
      ddpm.Config(**{field: value})

  @parameterized.parameters(
    (TaskConfig, 'schedule', 'square'),
    (TaskConfig, 'prediction', 'noise'),
    (TaskConfig, 'min_snr', 0.0),
    (TaskConfig, 'num_steps', 10),
    (SamplerConfig, 'guidance', -1.0),
    (SamplerConfig, 'eta', 2.0),
    (SamplerConfig, 'num_steps', 0),
    (UNetConfig, 'channels', ()),
    (UNetConfig, 'attention', (2,)),
    (UNetConfig, 'patch', 0),
    (UNetConfig, 'dropout', 1.0),
    (Judge.Config, 'num_steps', -1),
    (Judge.Config, 'num_samples', 0),
    (Judge.Config, 'every_steps', 0),
  )
  def test_impossible_values_of_groups_are_refused(self, group, field, value):
    with self.assertRaisesRegex(ConfigError, f'{group.__qualname__}.{field}='):
      group(**{field: value})

  def test_the_sampler_takes_no_more_steps_than_the_noise(self):
    with self.assertRaisesRegex(ConfigError, '--config.sampler.num_steps=1001 is not'):
      ddpm.Config(sampler=SamplerConfig(num_steps=1001))

  def test_guidance_needs_a_network_that_knows_no_class_too(self):
    guided = SamplerConfig(guidance=1.0)
    for fields in ({'conditional': False}, {'label_dropout': 0.0}):
      with self.assertRaisesRegex(ConfigError, '--config.sampler.guidance=1.0 '):
        ddpm.Config(sampler=guided, **fields)
    ddpm.Config(sampler=guided)


if __name__ == '__main__':
  absltest.main()
