"""linear_probe and knn: the encoder keeps every byte; what else happens."""

import json
import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.conv_encoder import ConvEncoder, EncoderConfig
from dlx.run import warm_start
from dlx.run.loop import fit
from experiments.self_supervised import knn, linear_probe, moco
from tests.same_bytes import same_bytes

ENCODER = dict(features=(8, 8), strides=(2, 2))


def run(module, config, workdir):
  """A run without figures; what it made."""
  built = module.build(config)._replace(figures={})
  if module is moco:
    built = built._replace(evals={})
  return fit(built, config, workdir)


class ProbeTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.path = cls.create_tempdir(cls()).full_path
    config = moco.Config(
      num_steps=3, batch_size=8, queue=16, encoder=EncoderConfig(**ENCODER)
    )
    params = run(moco, config, cls.path).state.params
    cls.encoder = jax.tree.map(np.array, params['encoder'])

  def stored(self, workdir, prefix):
    """The encoder in the last checkpoint of a run."""
    return warm_start.restore(workdir, self.encoder, prefix=prefix)[0]

  def test_linear_probe_leaves_the_bytes_of_an_encoder(self):
    workdir = self.create_tempdir().full_path
    encoder = linear_probe.Encoder(workdir=self.path, **ENCODER)
    config = linear_probe.Config(
      encoder=encoder, num_steps=5, batch_size=16, log_every_steps=1
    )
    outcome = run(linear_probe, config, workdir)
    for found in (
      outcome.state.model_state['encoder']['params'],
      self.stored(workdir, 'model_state/encoder/params'),
      self.stored(self.path, 'params/encoder'),
    ):
      self.assertTrue(same_bytes(found, self.encoder))
    self.assertEqual(outcome.metrics['train/frozen'], 1)
    # What is trained is a linear layer, which began at 0.
    shapes = sorted(x.shape for x in jax.tree.leaves(outcome.state.params))
    self.assertEqual(shapes, [(8, 10), (10,)])
    self.assertTrue(all(np.any(x != 0) for x in jax.tree.leaves(outcome.state.params)))
    record = json.loads((pathlib.Path(workdir) / 'config.json').read_text())
    self.assertEqual(record['warm_start']['prefix'], 'params/encoder')
    self.assertEqual(record['warm_start']['step'], 3)

  def test_own_encoder_is_trained_and_then_frozen(self):
    config = linear_probe.Config(
      num_steps=6, batch_size=16, encoder=linear_probe.Encoder(**ENCODER)
    )
    built = linear_probe.build(config)
    self.assertIsNone(built.warm_start)
    arrays = {k: jnp.asarray(x) for k, x in built.train_data.load().data.items()}
    step = jax.jit(lambda s: built.train_step(s, built.train_data.get(arrays, s.step)))
    state = jax.jit(built.init)(jax.random.key(0))
    moved = {'encoder': [], 'layer': [], 'frozen': [], 'contrast': []}
    for _ in range(6):
      new, sums = step(state)
      encoders = (s.model_state['encoder'] for s in (new, state))
      moved['encoder'].append(not same_bytes(*encoders))
      moved['layer'].append(not same_bytes(new.params, state.params))
      moved['frozen'].append(int(sums['frozen'].total))
      moved['contrast'].append(bool(sums['pretrain_loss'].total > 0))
      state = new
    first = [True] * 3 + [False] * 3
    self.assertEqual(moved['encoder'], first)
    self.assertEqual(moved['contrast'], first)
    self.assertEqual(moved['layer'], [not x for x in first])
    self.assertEqual(moved['frozen'], [0, 0, 0, 1, 1, 1])
    # One bit of one weight, and it is told.
    weights = state.model_state['encoder']['params']
    other = jax.tree.map(lambda x: jnp.nextafter(x, jnp.inf), weights['conv_0'])
    broken = {'params': {**weights, 'conv_0': other}}
    state = state._replace(model_state={**state.model_state, 'encoder': broken})
    self.assertEqual(int(step(state)[1]['frozen'].total), 0)

  def test_knn_fills_its_bank_with_features_of_an_encoder(self):
    workdir = self.create_tempdir().full_path
    encoder = knn.Encoder(workdir=self.path, **ENCODER)
    config = knn.Config(encoder=encoder, num_steps=4, batch_size=16, bank=60, k=3)
    state = run(knn, config, workdir).state
    for found in (
      state.model_state['encoder'],
      self.stored(workdir, 'model_state/encoder'),
    ):
      self.assertTrue(same_bytes(found, self.encoder))
    data = knn.build(config).train_data.load().data
    self.assertEqual(data['index'].tolist(), list(range(60)))
    bank = state.model_state['bank']
    self.assertTrue(np.all(bank['filled']))
    np.testing.assert_array_equal(bank['label'], data['label'])
    model = ConvEncoder(**ENCODER)
    mean, std = 0.30538339422407795, 0.37611916809001955
    image = (jnp.asarray(data['image'], jnp.float32) / 16 - mean) / std
    wanted = jax.jit(model.apply)({'params': self.encoder}, image).pooled_BF
    # Sums of 72 products of size 1.
    np.testing.assert_allclose(bank['features'], wanted, atol=2e-5)

  def test_knn_on_pixels_equals_scikit_learn(self):
    from sklearn.neighbors import KNeighborsClassifier

    config = knn.Config(num_steps=24, log_every_steps=12)
    built = knn.build(config)
    outcome = run(knn, config, self.create_tempdir().full_path)
    train = built.train_data.load().data
    test = built.evals['test'].data.load().data
    reference = KNeighborsClassifier(
      5, metric='cosine', weights=lambda d: np.exp((1 - d) / 0.07)
    )
    flat = lambda x: np.float64(x['image']).reshape(len(x['label']), -1)
    reference.fit(flat(train), train['label'])
    wanted = reference.score(flat(test), test['label'])
    # Two neighbours may be equally near to rounding: one image of 360.
    self.assertAlmostEqual(outcome.metrics['test/accuracy'], wanted, delta=1 / 360)
    self.assertAlmostEqual(outcome.metrics['test/loss'], 1 - wanted, delta=1 / 360)
    self.assertEqual(outcome.metrics['train/filled'], 1)
    # With the bank full, the loss of the whole set is the leave-one-out error.
    x_NF = flat(train) / np.linalg.norm(flat(train), axis=1, keepdims=True)
    cosine_NN = x_NF @ x_NF.T
    np.fill_diagonal(cosine_NN, -np.inf)
    near_Nk = np.argsort(-cosine_NN, 1)[:, :5]
    weight_Nk = np.exp(np.take_along_axis(cosine_NN, near_Nk, 1) / 0.07)
    votes_NK = (weight_Nk[..., None] * np.eye(10)[train['label'][near_Nk]]).sum(1)
    wrong = int((votes_NK.argmax(1) != train['label']).sum())
    loss = jax.jit(built.train_step)(outcome.state, train)[1]['loss']
    self.assertEqual(int(loss.count), 1437)
    self.assertGreater(wrong, 5)
    self.assertAlmostEqual(float(loss.total), wrong, delta=1)

  def test_knn_holds_out_what_others_hold_out(self):
    config = knn.Config(validation=0.9, num_steps=2, batch_size=80)
    outcome = run(knn, config, self.create_tempdir().full_path)
    # 144 images of 1437 are left, some of each class, and fill the bank.
    bank = outcome.state.model_state['bank']
    self.assertEqual(bank['label'].shape, (144,))
    self.assertTrue(np.all(bank['filled']))
    self.assertGreaterEqual(np.bincount(bank['label'], minlength=10).min(), 13)
    held = knn.build(config).evals['validation'].data.load().data['label']
    self.assertEqual(len(held), 1293)
    self.assertGreater(outcome.metrics['validation/accuracy'], 0.8)

  def test_an_encoder_of_another_shape_is_refused_in_one_line(self):
    # Other strides and groups have the same weights.
    for module, wrong, message in (
      (linear_probe, dict(features=(16, 8)), 'params/encoder/conv_0'),
      (
        linear_probe,
        dict(strides=(1, 2)),
        r'--config.encoder.strides=.1, 2. .* must be .2, 2., as of',
      ),
      (
        knn,
        dict(groups=4),
        'encoder.groups=4 is not allowed: must be 8, as of the encoder',
      ),
    ):
      encoder = module.Encoder(workdir=self.path, **{**ENCODER, **wrong})
      config = module.Config(encoder=encoder, num_steps=2, batch_size=8)
      with self.assertRaisesRegex(ConfigError, message) as caught:
        run(module, config, self.create_tempdir().full_path)
      self.assertNotIn('\n', str(caught.exception))

  @parameterized.parameters(
    (linear_probe, dict(micro_batches=2), 'micro_batches=2 .* unless encoder.workdir'),
    (linear_probe, dict(compute_dtype='float16'), 'compute_dtype=float16'),
    (knn, dict(k=0), 'k=0'),
    (knn, dict(bank=4), 'k=5 .* in .1, 4.'),
    (knn, dict(ema_decay=0.9), 'ema_decay=0.9 .* nothing is fitted'),
    (knn, dict(micro_batches=2), 'micro_batches=2'),
  )
  def test_refused(self, module, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      module.Config(**fields)

  @parameterized.parameters(
    (dict(strides=(2,)), 'strides=.* must be 4 numbers'),
    (dict(num_steps=-1), 'num_steps=-1'),
    (dict(temperature=0.0), 'temperature=0.0'),
    (dict(workdir=''), 'workdir= .* a workdir, or None'),
    (dict(lr=0.0), 'lr=0.0'),
    (dict(loss='simclr'), 'loss=simclr is not allowed: must be one_way or nt_xent'),
  )
  def test_an_encoder_that_cannot_be_is_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, f'^Encoder.{message}'):
      linear_probe.Encoder(**fields)

  @parameterized.parameters(('one_way', 12), ('nt_xent', 24))
  def test_views_are_compared_as_the_loss_says(self, loss, views):
    encoder = linear_probe.Encoder(**ENCODER, loss=loss, num_steps=2)
    built = linear_probe.build(
      linear_probe.Config(num_steps=4, batch_size=12, encoder=encoder)
    )
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    program = jax.make_jaxpr(built.train_step)(state, built.train_data.shapes[0])
    square = [n for n in (12, 24) if f'f32[{n},{n}] = dot_general' in str(program)]
    self.assertEqual(square, [views])

  def test_what_needs_no_own_encoder_is_allowed(self):
    given = linear_probe.Encoder(workdir='RUN')
    linear_probe.Config(encoder=given, micro_batches=2, compute_dtype='float16')
    linear_probe.Config(encoder=linear_probe.Encoder(num_steps=0), micro_batches=2)


if __name__ == '__main__':
  absltest.main()
