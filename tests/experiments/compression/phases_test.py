"""distill, ensemble, vae: what stays frozen, and when."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run.loop import fit
from dlx.tasks.classification import AuxiliaryCnn
from experiments.compression import distill
from experiments.generative import vae
from experiments.vision import cnn, ensemble
from tests.same_bytes import same_bytes


def run(built, steps):
  """States before step 0 and after each step."""
  data = jax.tree.map(jnp.asarray, built.train_data.load().data)
  state = built.init(jax.random.key(0))
  step = jax.jit(lambda s: built.train_step(s, built.train_data.get(data, s.step)))
  states = [state]
  for _ in range(steps):
    states.append(step(states[-1])[0])
  return states


SMALL = {'batch_size': 8, 'labels': 20}


class DistillTest(parameterized.TestCase):
  CONFIG = distill.Config(
    **SMALL,
    num_steps=6,
    teacher=AuxiliaryCnn(num_steps=3, features=(4,), dense=8),
    features=(8,),
  )

  def test_one_learns_while_the_other_keeps_every_byte(self):
    states = run(distill.build(self.CONFIG), 6)
    for i, (old, new) in enumerate(zip(states[:-1], states[1:], strict=True)):
      teaching = i < 3
      taught = same_bytes(old.model_state, new.model_state)
      learnt = same_bytes(old.params, new.params)
      self.assertEqual((taught, learnt), (not teaching, teaching), f'step {i}')
      frozen = 'student' if teaching else 'teacher'
      self.assertTrue(same_bytes(old.opt_state[frozen], new.opt_state[frozen]))

  def test_a_picture_says_whose_answers_it_shows(self):
    built = distill.build(dataclasses.replace(self.CONFIG, temperature=4.0))
    (image,) = (field.shape for field in built.functions['predict'].inputs.values())
    tree = {'image': np.zeros((2, *image), np.uint8), 'label': [0, 1]}
    figure = built.figures['softened_teacher'].draw(
      {**tree, 'probs': np.eye(10)[[0, 2]]}
    )
    self.assertEqual(figure.get_suptitle(), 'Teacher at temperature 4: 1 of 2 right')

  def test_labels_beyond_the_marked_are_never_read(self):
    teacher = dataclasses.replace(self.CONFIG.teacher, num_steps=1)
    config = dataclasses.replace(self.CONFIG, transfer=40, alpha=0.5, teacher=teacher)
    built = distill.build(config)
    data = jax.tree.map(jnp.asarray, built.train_data.load().data)
    state = built.init(jax.random.key(0))._replace(step=jnp.int32(2))
    batch = built.train_data.get(data, jnp.int32(2))
    marked = batch['student/marked']
    self.assertTrue(bool(marked.any()) and not bool(marked.all()))
    label = batch['student/label']
    hidden = {**batch, 'student/label': jnp.where(marked, label, (label + 1) % 10)}
    shown = {**batch, 'student/label': jnp.where(marked, (label + 1) % 10, label)}
    step = jax.jit(built.train_step)
    params = [step(state, b)[0].params for b in (batch, hidden, shown)]
    self.assertTrue(same_bytes(params[0], params[1]))
    self.assertFalse(same_bytes(params[0], params[2]))

  def test_the_teacher_of_another_run_is_that_of_its_workdir(self):
    small = {'features': (4,), 'dense': 8, 'num_steps': 3}
    source = cnn.Config(**small, eval_every_steps=None, save_every_steps=None)
    folder = self.create_tempdir().full_path
    known = fit(cnn.build(source)._replace(figures={}), source, folder).state
    teacher = dataclasses.replace(self.CONFIG.teacher, workdir=folder)
    config = dataclasses.replace(self.CONFIG, teacher=teacher, num_steps=2)
    out = fit(
      distill.build(config)._replace(figures={}),
      config,
      self.create_tempdir().full_path,
    )
    taught = out.state.model_state['teacher']
    self.assertTrue(same_bytes(taught['params'], known.params))
    self.assertTrue(same_bytes(taught['batch_stats'], known.model_state['batch_stats']))

  def test_refuses_a_teacher_of_another_shape(self):
    source = cnn.Config(features=(4,), dense=16, num_steps=1, eval_every_steps=None)
    folder = self.create_tempdir().full_path
    fit(cnn.build(source)._replace(figures={}), source, folder)
    teacher = dataclasses.replace(self.CONFIG.teacher, workdir=folder)
    config = dataclasses.replace(self.CONFIG, teacher=teacher)
    with self.assertRaisesRegex(ConfigError, 'is of another program: state/params'):
      fit(distill.build(config), config, self.create_tempdir().full_path)

  @parameterized.parameters(
    (dict(num_steps=0), r'--config.teacher.num_steps=0 is not'),
    (dict(workdir=''), r'AuxiliaryCnn.workdir= is not allowed: must be a workdir'),
    (dict(lr=0.0), r'AuxiliaryCnn.lr=0.0 is not'),
    (dict(features=()), r'AuxiliaryCnn.features=\(\) is not'),
  )
  def test_refuses_a_teacher_that_cannot_be(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      distill.Config(teacher=AuxiliaryCnn(**fields))

  def test_refuses_images_that_teach_nothing(self):
    with self.assertRaisesRegex(ConfigError, 'transfer=5 is not allowed'):
      distill.Config(transfer=5, alpha=0.0)


class EnsembleTest(absltest.TestCase):
  def test_log_loss_is_never_above_the_mean_member(self):
    for combine in ('logits', 'probs'):
      config = ensemble.Config(combine=combine, features=(8,), members=3, labels=50)
      built = ensemble.build(config)
      states = run(built, 2)
      test = built.evals['test']
      data = jax.tree.map(jnp.asarray, test.data.load().data)
      batch = test.data.get(data, jnp.int32(0))
      for state in states:
        found = test.summarize(test.step(state, batch))
        self.assertGreater(float(found['loss_below_mean']), 0, combine)
        self.assertEqual(found['member_accuracy'].shape, (3,))
        self.assertEqual(found['accuracy'].shape, ())
        gain = found['accuracy'] - found['member_accuracy'].max()
        np.testing.assert_allclose(found['gain_over_best'], gain)

  def test_equal_members_are_one_net(self):
    built = ensemble.build(ensemble.Config(features=(8,), members=2, labels=50))
    state = run(built, 1)[-1]
    same = jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), state.params)
    test = built.evals['test']
    data = jax.tree.map(jnp.asarray, test.data.load().data)
    sums = test.step(state._replace(params=same), test.data.get(data, jnp.int32(0)))
    found = test.summarize(sums)
    np.testing.assert_allclose(found['loss'], found['member_loss'][0], rtol=1e-5)
    np.testing.assert_allclose(found['ece_below_mean'], 0, atol=1e-6)


class VaeTest(absltest.TestCase):
  def test_bound_is_reconstruction_plus_kl(self):
    built = vae.build(vae.Config(features=(8,), latents=3))
    state = built.init(jax.random.key(0))
    test = built.evals['test']
    data = jax.tree.map(jnp.asarray, test.data.load().data)
    found = test.summarize(test.step(state, test.data.get(data, jnp.int32(0))))
    np.testing.assert_allclose(
      found['loss'], found['reconstruction'] + found['kl'], rtol=1e-6
    )
    np.testing.assert_allclose(found['elbo'], -found['loss'])
    # Untrained logits are near 0: 64 pixels of log 2 each.
    np.testing.assert_allclose(found['reconstruction'], 64 * np.log(2), rtol=0.2)

  def test_loss_is_what_is_trained_and_a_bound_needs_a_draw(self):
    for beta, sample, terms in (
      (1.0, True, {'elbo', 'kl'}),
      (0.0, True, {'elbo', 'kl'}),
      (0.5, False, {'kl'}),
      (0.0, False, set()),
    ):
      fields = {'beta': beta, 'sample': sample, 'targets': 'grey'}
      built = vae.build(vae.Config(features=(8,), latents=3, lr=1e-2, **fields))
      data = jax.tree.map(jnp.asarray, built.train_data.load().data)
      batch = built.train_data.get(data, jnp.int32(0))
      state, trained = jax.jit(built.train_step)(built.init(jax.random.key(0)), batch)
      self.assertEqual(set(trained), {'loss', 'reconstruction', *terms} - {'elbo'})
      self.assertEqual('score' in built.functions, sample)
      more = {'index': jnp.arange(128), 'weight': jnp.ones(128)}
      sums = jax.jit(built.evals['test'].step)(state, {**batch, **more})
      found = {k: float(x) for k, x in built.evals['test'].summarize(sums).items()}
      self.assertEqual(set(found), {'loss', 'reconstruction', *terms})
      kl = found.get('kl', 0.0)
      self.assertAlmostEqual(
        found['loss'], found['reconstruction'] + beta * kl, places=3
      )
      if sample:
        self.assertAlmostEqual(found['elbo'], -found['reconstruction'] - kl, places=3)
        self.assertGreater(kl, 1e-2)  # So that beta shows.

  def test_evaluation_noise_goes_by_the_image_and_not_by_the_batch(self):
    losses = []
    for size in (60, 360):
      built = vae.build(vae.Config(features=(8,), latents=3, eval_batch_size=size))
      state = built.init(jax.random.key(0))
      test = built.evals['test']
      data = jax.tree.map(jnp.asarray, test.data.load().data)
      sums = [
        test.step(state, test.data.get(data, jnp.int32(i))) for i in range(360 // size)
      ]
      total = jax.tree.map(lambda *x: sum(x), *sums)
      losses.append(float(test.summarize(total)['loss']))
    # Sums of 360 numbers near 50 in another order.
    np.testing.assert_allclose(*losses, rtol=1e-5)

  def test_grey_targets_draw_nothing_and_no_sample_means_the_mean(self):
    config = vae.Config(
      features=(8,), latents=3, targets='grey', sample=False, beta=0.0
    )
    built = vae.build(config)
    data = jax.tree.map(jnp.asarray, built.train_data.load().data)
    batch = built.train_data.get(data, jnp.int32(0))
    step = jax.jit(built.train_step)
    params = []
    for seed in (0, 1):
      state = built.init(jax.random.key(0))._replace(rng=jax.random.key(seed))
      params.append(step(state, batch)[0].params)
    self.assertTrue(same_bytes(*params))


if __name__ == '__main__':
  absltest.main()
