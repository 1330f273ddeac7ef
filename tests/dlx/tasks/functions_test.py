"""Functions of tasks on small models: what they share with evaluations, and options."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import diffusion, optim, sampling
from dlx.config import Config
from dlx.data.sets import characters, images
from dlx.experiment import Field
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT
from dlx.state import create, seed_keys
from dlx.tasks.classification import class_probabilities
from dlx.tasks.diffusion import Sampling, Task
from dlx.tasks.image_generation import SampleReport
from dlx.tasks.judge import Judge
from dlx.tasks.language_modelling import language_model

SEEDS = jnp.array([7, 2**32 - 1, 7], jnp.uint32)


def a_state():
  return create(jnp.float32(1), (), jax.random.key(3))


class LanguageTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    data = characters.characters('pydoc')
    model = GPT(
      len(data.vocabulary),
      8,
      num_layers=1,
      init_scale=0.5,
      block=BlockConfig(width=16, num_heads=2),
    )
    config = dataclasses.replace(Config(), batch_size=4, eval_batch_size=4)
    cls.built = language_model(
      config, data, model=model, tx=optim.adam(1e-3), sample_length=6, top_k=40
    )
    cls.state = jax.jit(cls.built.init)(jax.random.key(0))

  def test_score_is_what_the_evaluation_reports(self):
    token_BW = jax.random.randint(jax.random.key(1), (4, 9), 0, 90)
    score = jax.jit(self.built.functions['score'].call)
    found = score(self.state, {'tokens': token_BW})['log_likelihood']
    counts = jnp.ones((4, 8))
    batch = {'token': token_BW, 'counts': counts, 'weight': jnp.ones(4)}
    loss = jax.jit(self.built.evals['validation'].step)(self.state, batch)['loss']
    np.testing.assert_allclose(-found.mean(), loss.total / loss.count, rtol=1e-6)
    # As if the last characters were not there: the mean of what remains.
    short = score(self.state, {'tokens': token_BW[:, :3]})['log_likelihood']
    self.assertEqual(short.shape, (4,))
    self.assertFalse(np.allclose(short, found))

  def test_generate_goes_on_from_the_end_of_a_prompt_by_its_seed(self):
    function = self.built.functions['generate']
    options = {'num_tokens': 6, 'top_k': 40, 'top_p': None, 'min_p': None}
    self.assertEqual(function.options, options)
    prompt_B = jnp.tile(jnp.arange(11, dtype=jnp.int32), (3, 1))

    generate = jax.jit(function.call)

    def call(prompt_BP, temperature_B):
      inputs = {'prompt': prompt_BP, 'seed': SEEDS, 'temperature': temperature_B}
      return np.asarray(generate(self.state, inputs)['tokens'])

    found = call(prompt_B, jnp.ones(3))
    self.assertEqual((found.shape, found.dtype), ((3, 6), np.int32))
    np.testing.assert_array_equal(found[0], found[2])
    self.assertFalse(np.array_equal(found[0], found[1]))
    # Of a prompt above the context of 8 the last tokens count.
    np.testing.assert_array_equal(call(prompt_B[:, -8:], jnp.ones(3)), found)
    # Temperature 0 of one row is the likeliest token, whatever its neighbours have.
    mixed = call(prompt_B, jnp.array([1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(mixed[0], found[0])
    np.testing.assert_array_equal(mixed[1], mixed[2])
    inputs = {'prompt': prompt_B, 'seed': SEEDS, 'temperature': jnp.ones(3)}
    fewer = lambda s, x: function.call(s, x, num_tokens=2, top_k=1)
    shape = jax.eval_shape(fewer, self.state, inputs)['tokens'].shape
    self.assertEqual(shape, (3, 2))


class SampleTest(parameterized.TestCase):
  @parameterized.parameters(True, False)
  def test_a_generator(self, conditional):
    data = images.images('digits')

    def sample(state, z_BZ, label_B):
      shown_B = z_BZ.mean(1) * state.params + label_B
      return jnp.broadcast_to(shown_B[:, None, None, None], (len(z_BZ), *data.shape))

    report = SampleReport(data, Judge(data), sample, 5, conditional)
    function = report.function()
    self.assertEqual('label' in function.inputs, conditional)
    label = {'label': jnp.array([0, 1, 2])} if conditional else {}
    found = function.call(a_state(), {'seed': SEEDS, **label})['image'][:, 0, 0, 0]
    z_BZ = jax.vmap(lambda k: jax.random.normal(k, (5,)))(seed_keys(SEEDS))
    wanted = z_BZ.mean(1) + label.get('label', 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    half = function.call(a_state(), {'seed': SEEDS, **label}, scale=0.5)['image']
    wanted = 0.5 * z_BZ.mean(1) + label.get('label', 0)
    np.testing.assert_allclose(half[:, 0, 0, 0], wanted, rtol=1e-6)

  def test_a_sampler_is_that_of_the_evaluation_with_a_key_of_its_own(self):
    data = images.images('digits')
    schedule = diffusion.SCHEDULES['cosine'](50)
    visit = lambda n: sampling.ddim(schedule, n, 1.0)

    def network(state, x, t_B, label_B):
      null = (label_B == data.num_classes).astype(x.dtype)
      return state.params * x * (0.5 - 0.1 * null[:, None, None, None])

    task = Task(schedule, diffusion.PREDICTIONS['v'])
    drawn = Sampling(network, task, visit(4), data)
    function = drawn.function(visit)
    self.assertEqual(function.options, {'steps': 4, 'guidance': 0.0})
    inputs = {'seed': SEEDS, 'label': jnp.array([0, 1, 0])}
    found = function.call(a_state(), inputs)['image']
    self.assertEqual(found.shape, (3, *data.shape))
    np.testing.assert_array_equal(found[0], found[2])
    self.assertFalse(np.allclose(found[0], found[1]))
    start = drawn._start(a_state(), seed_keys(SEEDS), inputs['label'])
    np.testing.assert_array_equal(found, (sampling.sample(*start) + 1) / 2)
    for options in ({'steps': 7}, {'guidance': 1.0}):
      other = function.call(a_state(), inputs, **options)['image']
      self.assertGreater(np.abs(other - found).max(), 1e-3)
    free = drawn._replace(conditional=False).function(visit)
    self.assertEqual((set(free.inputs), free.options), ({'seed'}, {'steps': 4}))
    self.assertEqual(free.call(a_state(), {'seed': SEEDS})['image'].shape, found.shape)


class ProbabilitiesTest(absltest.TestCase):
  def test_softmax_of_the_logits(self):
    function = class_probabilities(
      lambda state, inputs: state.params * inputs['x'],
      {'x': Field('row', (2,), 'float32')},
      ('no', 'yes'),
    )
    odds = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
    found = function.call(a_state(), {'x': odds})['probabilities']
    np.testing.assert_allclose(found, [[0.25, 0.75], [0.5, 0.5]], rtol=1e-6)
    field = function.outputs['probabilities']
    self.assertEqual((field.shape, field.names), ((2,), ('no', 'yes')))


if __name__ == '__main__':
  absltest.main()
