"""The first GAN, of dense layers (arXiv:1406.2661), with or without classes.

  python -m launch.train --exp=gan
  python -m launch.train --exp=gan --config.dataset=mnist --config.num_steps=40000 \
      --config.eval_every_steps=4000 --config.judge=CNN --data_dir=DATA

Noise of 100 numbers -> 256 -> 512 -> image; image -> 512 -> 256 -> one logit. CNN is
the workdir of `--exp=cnn --config.dataset=mnist`, whose net judges samples beside real
images: share of which it is sure above 0.9, entropy of the classes, Frechet distance of
its features. Without `judge` the first steps train one. experiments/dcgan.py has the
same players of convolutions, and says what else is reported.

A step is `critic_steps` updates of the discriminator, each with its own images and
noise, and one of the generator; samples are of the averaged generator. There is no
`overfit` floor: the losses of two players settle where neither gains, not at 0.
All measured figures stand in experiments/README.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import adversarial, experiment, metrics, optim
from dlx.data import catalog
from dlx.data.resident import shuffled
from dlx.judge import Judge, check_judge
from dlx.models import gan
from dlx.samples import SampleReport
from dlx.training import step as steps
from dlx.training.early_stopping import early_stopping
from dlx.training.state import Mean, create

fold = jax.random.fold_in
# Folded into the key of a step: no numbers of a critic step.
DROPOUT, JUDGE = 2**31 - 2, 2**31 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 4000  # Steps of the generator in the whole run.
  batch_size: int = 64  # Real images of one discriminator step, and samples.
  log_every_steps: int = 200  # Steps between lines of training metrics.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  ema_decay: float | None = 0.999  # Decay of the averaged generator, which is sampled.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  conditional: bool = False  # Whether samples are of a class that is asked for.
  noise: int = 100  # Entries of z, the normal noise that becomes a sample.
  generator_features: tuple[int, ...] = (256, 512)  # Widths of its hidden layers.
  discriminator_features: tuple[int, ...] = (512, 256)  # Widths of its hidden layers.
  dropout: float = 0.3  # Share of the discriminator's hidden units dropped.
  loss: str = 'non_saturating'  # non_saturating, minimax, least_squares or hinge.
  real_label: float = 0.9  # Target for real images: one-sided label smoothing.
  critic_steps: int = 1  # Steps of the discriminator before one of the generator.
  lr: float = 5e-4  # Peak of both learning rates; a cosine to 0.
  b1: float = 0.5  # Decay of Adam's first moment.
  truncation: float | None = None  # Also judge samples of noise scaled by this.
  num_samples: int = 1000  # Samples that are judged; at most the test images.
  sample_every_steps: int | None = None  # Steps between judgements; None: evaluations.
  judge: str | None = None  # Workdir of a run of cnn that judges; None: trained here.
  judge_steps: int = 300  # First steps that train the judge where there is no workdir.

  def __post_init__(self):
    super().__post_init__()
    self.require('compute_dtype', self.compute_dtype != 'float16', 'another type')
    self.require('micro_batches', self.micro_batches == 1, '1 for two players')
    for name in ('noise', 'num_samples'):
      self.require(name, getattr(self, name) >= 1, 'at least 1')
    for name in ('generator_features', 'discriminator_features'):
      widths = getattr(self, name)
      self.require(name, all(w >= 1 for w in widths), 'numbers of at least 1')
    self.require('dropout', 0 <= self.dropout < 1, 'in [0, 1)')
    self.require('loss', self.loss in adversarial.KINDS, ' or '.join(adversarial.KINDS))
    self.require(
      'real_label',
      0 < self.real_label <= 1 and (self.loss != 'hinge' or self.real_label == 1),
      'in (0, 1], and 1 with loss=hinge',
    )
    self.require('critic_steps', 1 <= self.critic_steps <= 10, 'in [1, 10]')
    self.require('lr', self.lr > 0, 'above 0')
    self.require('b1', 0 <= self.b1 < 1, 'in [0, 1)')
    self.require(
      'truncation', self.truncation is None or self.truncation > 0, 'above 0, or None'
    )
    every = self.sample_every_steps
    self.require(
      'sample_every_steps', every is None or every >= 1, 'at least 1, or None'
    )
    check_judge(self)


def build(config: Config) -> experiment.Experiment:
  data = catalog.images(config.dataset)
  num_classes = data.num_classes if config.conditional else None
  dtypes: Any = {'dtype': config.compute_dtype, 'param_dtype': config.param_dtype}
  generator = gan.Generator(
    shape=data.shape,
    features=config.generator_features,
    num_classes=num_classes,
    **dtypes,
  )
  discriminator = gan.Discriminator(
    features=config.discriminator_features,
    dropout=config.dropout,
    num_classes=num_classes,
    **dtypes,
  )
  tx = optim.adam(optim.cosine(config.lr, config.num_steps), config.b1)
  tx = optim.clip(tx, norm=config.clip_norm, value=config.clip_value)
  judge = Judge(data, workdir=config.judge, num_steps=config.judge_steps)
  real_above = adversarial.threshold(config.loss, config.real_label)
  unit = lambda image: image.astype(jnp.float32) / data.max_value
  known = lambda label_B: label_B if config.conditional else None

  def generate(params, z_BZ, label_B):
    """Samples in [-1, 1]."""
    variables = {'params': params}
    return jnp.asarray(generator.apply(variables, z_BZ, known(label_B), train=True))

  def logits(params, image, label_B, key=None):
    """Of the discriminator, [B]; `key` of its dropout, None: none."""
    rngs = {} if key is None else {'dropout': key}
    variables, train = {'params': params}, key is not None
    return jnp.asarray(
      discriminator.apply(variables, image, known(label_B), train=train, rngs=rngs)
    )

  def critic_metrics(real_B, fake_B, weight_B=None):
    loss_B = adversarial.discriminator_loss(
      config.loss, real_B, fake_B, config.real_label
    )
    return {
      'loss': metrics.mean(loss_B, weight_B),
      'real_accuracy': metrics.mean(real_B > real_above, weight_B),
      'fake_accuracy': metrics.mean(fake_B <= real_above, weight_B),
    }

  def init(key):
    label_B, z_BZ = jnp.zeros((1,), jnp.int32), jnp.zeros((1, config.noise))
    image = jnp.zeros((1, *data.shape))
    made = {
      'g': generator.init(fold(key, 0), z_BZ, known(label_B), train=False),
      'd': discriminator.init(fold(key, 1), image, known(label_B), train=False),
    }
    params = {name: variables['params'] for name, variables in made.items()}
    return create(
      params,
      {name: tx.init(p) for name, p in params.items()},
      fold(key, 2),
      model_state={
        'judge': judge.init(fold(key, 3)),
        'history': report.blank_history(),
      },
      ema=() if config.ema_decay is None else jax.tree.map(jnp.copy, params['g']),
    )

  def train_step(state, batch):
    rng = fold(state.rng, state.step)
    params, opt_state = dict(state.params), dict(state.opt_state)
    sums = []
    # Every step of the discriminator has real images and samples of its own.
    rows = steps.strided(batch, config.critic_steps)
    for k in range(config.critic_steps):
      image, label_B = rows['image'][k], rows['label'][k]
      z_BZ = jax.random.normal(fold(rng, k), (label_B.shape[0], config.noise))
      dropout = fold(fold(rng, DROPOUT), k)
      fake = generate(params['g'], z_BZ, label_B)

      def critic_loss(p, image=image, fake=fake, label_B=label_B, key=dropout):
        real_B = logits(p, 2 * unit(image) - 1, label_B, fold(key, 0))
        found = critic_metrics(real_B, logits(p, fake, label_B, fold(key, 1)))
        return found['loss'].total / found['loss'].count, found

      grads, found = jax.grad(critic_loss, has_aux=True)(params['d'])
      found['d_grad_norm'] = Mean(optim.global_norm(grads), jnp.ones(()))
      params['d'], opt_state['d'] = steps.update(tx, grads, opt_state['d'], params['d'])
      sums.append(found)

    # The generator learns from the noise of the last step, judged by what came of it.
    def fooled(p):
      fake_B = logits(
        params['d'], generate(p, z_BZ, label_B), label_B, fold(dropout, 2)
      )
      loss = metrics.mean(adversarial.generator_loss(config.loss, fake_B))
      return loss.total / loss.count, loss

    grads, loss = jax.grad(fooled, has_aux=True)(params['g'])
    params['g'], opt_state['g'] = steps.update(tx, grads, opt_state['g'], params['g'])
    ema = state.ema
    if config.ema_decay is not None:
      ema = steps.average(ema, params['g'], config.ema_decay, state.step)
    judged = judge.train(
      state.model_state['judge'], state.step, fold(rng, JUDGE), unit(image), label_B
    )
    state = state._replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      model_state={**state.model_state, 'judge': judged},
      ema=ema,
    )
    return state, {
      **jax.tree.map(lambda *x: sum(x), *sums),
      'g_loss': loss,
      'g_grad_norm': Mean(optim.global_norm(grads), jnp.ones(())),
    }

  def sample(state, z_BZ, label_B):
    """Images in [0, 1] of the averaged generator."""
    params = state.params['g'] if config.ema_decay is None else state.ema
    return (generate(params, z_BZ, label_B) + 1) / 2

  report = SampleReport(data, judge, sample, config.noise, config.conditional)

  def health(state, fake, batch):
    """The discriminator on samples of the evaluation and unseen real images."""
    real = 2 * unit(batch['image']) - 1
    asked_B = report.asked(batch['index'])
    return critic_metrics(
      logits(state.params['d'], real, batch['label']),
      logits(state.params['d'], 2 * fake - 1, asked_B),
      batch['weight'],
    )

  built = experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=shuffled(
      data.train,
      batch_size=config.batch_size * config.critic_steps,
      seed=config.seed,
      stream=config.stream,
      workers=config.stream_workers,
    ),
    evals=report.evaluations(config, health),
    warm_start=None if config.judge is None else judge.warm_start,
    after_eval=report.remember(config.num_steps),
    figures=report.figures('samples'),
    overfit=None,
  )
  if config.early_stop_metric is None:
    return built
  return early_stopping(
    built,
    config.early_stop_metric,
    patience=config.early_stop_patience,
    mode=config.early_stop_mode,
  )
