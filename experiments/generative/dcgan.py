"""Two players: DCGAN (arXiv:1511.06434) and the GAN of dense layers (arXiv:1406.2661).

  python -m launch.train --exp=dcgan
  python -m launch.train --exp=dcgan --config.dataset=mnist --config.num_steps=1500 \
      --config.eval_every_steps=500 --config.judge=CNN --data_dir=DATA
  python -m launch.train --exp=dcgan --config.dataset=mnist --config.conditional=false \
      --config.noise=16 --config.num_steps=12500 --config.eval_every_steps=2500 \
      --config.ema_decay=0.999 --config.truncation=0.7 --config.judge=CNN \
      --data_dir=DATA
  python -m launch.train --exp=dcgan --config.model=dense --config.conditional=false \
      --config.noise=100 --config.num_steps=4000 --config.eval_every_steps=500 \
      --config.ema_decay=0.999 --config.lr=5e-4

The second command asks for classes (arXiv:1411.1784; the discriminator by the logit of
the label, arXiv:1802.05637) and takes minutes; the third does not; the last is the
first GAN, noise -> 256 -> 512 -> image -> 512 -> 256 -> one logit. CNN is the workdir
of `--exp=cnn --config.dataset=mnist`, whose net judges samples beside real images:
share of which it is sure above 0.9, share of the asked class, entropy of the classes,
Frechet distance of its features. Without `judge` the first steps train one. Also
reported: what the discriminator gets right, on training batches and, under `samples`,
on test images and new samples; gradient norms; how near samples lie to each other.

A step is `critic_steps` updates of the discriminator, each with its own images and
noise, and one of the generator; samples are of the averaged generator. There is no
`overfit` floor: the losses of two players settle where neither gains, not at 0.
All measured figures stand in experiments/README.md.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.sets import images
from dlx.losses import adversarial
from dlx.models import dcgan, gan
from dlx.run import warm_start
from dlx.state import Mean, Metric, create, streams
from dlx.tasks.image_generation import SampleReport
from dlx.tasks.judge import JUDGE, Judge, check_judge
from dlx.train import steps

fold = jax.random.fold_in
METRICS = {
  'loss': Metric(
    'Loss of the discriminator',
    None,
    'Mean over pairs of a real image and a sample of the loss of the discriminator.',
    '',
    'loss',
  ),
  'g_loss': Metric(
    'Loss of the generator',
    None,
    'Mean over the samples of the loss of the generator.',
    '',
    'loss',
  ),
  'real_accuracy': Metric(
    'Real images told',
    None,
    'Share of the real images that the discriminator takes for real.',
    '%',
    'share',
  ),
  'fake_accuracy': Metric(
    'Samples told',
    None,
    'Share of the samples that the discriminator takes for samples.',
    '%',
    'share',
  ),
  'r1': Metric(
    'Gradient penalty',
    None,
    'Mean over the real images of the squared gradient of the discriminator.',
    '',
    'penalty',
  ),
  'd_grad_norm': Metric(
    'Gradient of the discriminator',
    None,
    'Norm of the gradient of all parameters of the discriminator.',
    '',
    'norm',
  ),
  'g_grad_norm': Metric(
    'Gradient of the generator',
    None,
    'Norm of the gradient of all parameters of the generator.',
    '',
    'norm',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Steps of the generator in the whole run.
  batch_size: int = 64  # Real images of one discriminator step, and samples.
  log_every_steps: int = 50  # Steps between lines of training metrics.
  eval_every_steps: int | None = 150  # Steps between evaluations; None: at the end.
  ema_decay: float | None = 0.995  # Decay of the averaged generator, which is sampled.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  conditional: bool = True  # Whether samples are of a class that is asked for.
  noise: int = 64  # Entries of z, the normal noise that becomes a sample.
  model: str = 'conv'  # conv: the next three fields; dense: the three after them.
  generator_width: int = 64  # Channels before the last layer of the generator.
  discriminator_width: int = 32  # Channels of the discriminator's first layer.
  discriminator_norm: str = 'batch'  # batch, spectral or none.
  generator_features: tuple[int, ...] = (256, 512)  # Widths of its hidden layers.
  discriminator_features: tuple[int, ...] = (512, 256)  # Widths of its hidden layers.
  dropout: float = 0.3  # Share of the discriminator's hidden units dropped.
  loss: str = 'non_saturating'  # non_saturating, minimax, least_squares or hinge.
  real_label: float = 0.9  # Target for real images: one-sided label smoothing.
  r1: float = 0.0  # Weight of the discriminator's gradient penalty at real images.
  critic_steps: int = 1  # Steps of the discriminator before one of the generator.
  lr: float = 8e-4  # Peak of both learning rates; a cosine to 0.
  b1: float = 0.5  # Decay of Adam's first moment.
  truncation: float | None = None  # Also judge samples of noise scaled by this.
  num_samples: int = 1000  # Samples that are judged; at most the test images.
  sample_every_steps: int | None = None  # Steps between judgements; None: evaluations.
  judge: str | None = None  # Workdir of a run of cnn that judges; None: trained here.
  judge_steps: int = 300  # First steps that train the judge where there is no workdir.

  def __post_init__(self):
    super().__post_init__()
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('micro_batches', why='batch norm sees a batch')
    self.choice('model', of=('conv', 'dense'))
    self.bounds('noise', 'generator_width', 'discriminator_width', least=1)
    self.bounds('generator_features', 'discriminator_features', least=1)
    self.choice('discriminator_norm', of=dcgan.NORMS)
    self.choice('loss', of=adversarial.KINDS)
    self.bounds('dropout', 'b1', least=0, below=1)
    self.bounds('real_label', above=0, most=1)
    self.require(
      'real_label', self.loss != 'hinge' or self.real_label == 1, '1 with loss=hinge'
    )
    self.bounds('r1', least=0)
    apart = self.model == 'dense' or self.discriminator_norm != 'batch'
    self.require('r1', self.r1 == 0 or apart, '0 with discriminator_norm=batch')
    self.bounds('critic_steps', least=1, most=10)
    self.bounds('lr', 'truncation', above=0)
    self.bounds('num_samples', 'sample_every_steps', least=1)
    check_judge(self)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  num_classes = data.num_classes if config.conditional else None
  if config.model == 'conv':
    generator = dcgan.Generator(
      shape=data.shape,
      width=config.generator_width,
      num_classes=num_classes,
      **config.dtypes,
    )
    discriminator = dcgan.Discriminator(
      width=config.discriminator_width,
      norm=config.discriminator_norm,
      num_classes=num_classes,
      **config.dtypes,
    )
  else:
    generator = gan.Generator(
      shape=data.shape,
      features=config.generator_features,
      num_classes=num_classes,
      **config.dtypes,
    )
    discriminator = gan.Discriminator(
      features=config.discriminator_features,
      dropout=config.dropout,
      num_classes=num_classes,
      **config.dtypes,
    )
  tx = optim.adam(optim.cosine(config.lr, config.num_steps), config.b1)
  tx = optim.clip(tx, **config.clipping)
  judge = Judge(
    data, workdir=config.judge, num_steps=config.judge_steps, dtype=config.param_dtype
  )
  real_above = adversarial.threshold(config.loss, config.real_label)
  known = lambda label_B: label_B if config.conditional else None

  def init(key):
    label_B, z_BZ = jnp.zeros((1,), jnp.int32), jnp.zeros((1, config.noise))
    made = {
      'g': generator.init(fold(key, 0), z_BZ, known(label_B), train=False),
      'd': discriminator.init(
        fold(key, 1), jnp.zeros((1, *data.shape)), known(label_B), train=False
      ),
    }
    params = {name: variables['params'] for name, variables in made.items()}
    stats = {name: v.get('batch_stats', {}) for name, v in made.items()}  # {}: dense.
    average = {'params': params['g'], 'batch_stats': stats['g']}
    # Real images and samples are normalised apart, in training as in evaluation.
    stats['d'] = {'real': stats['d'], 'fake': jax.tree.map(jnp.copy, stats['d'])}
    model_state = {'judge': judge.init(fold(key, 3)), 'history': report.blank_history()}
    return create(
      params,
      {name: tx.init(p) for name, p in params.items()},
      fold(key, 2),
      model_state={**stats, **model_state},
      ema=steps.initial_average(average, config.ema_decay),
    )

  def generate(params, stats, z_BZ, label_B):
    """Samples in [-1, 1], and the statistics of the batch mixed into `stats`."""
    image, new = generator.apply(
      {'params': params, 'batch_stats': stats},
      z_BZ,
      known(label_B),
      train=True,
      mutable=['batch_stats'],
    )
    return jnp.asarray(image), steps.like(new.get('batch_stats', stats), stats)

  def look(params, stats, image, label_B, dropout):
    """Logits of the discriminator, and its new statistics."""
    logits_B, new = discriminator.apply(
      {'params': params, 'batch_stats': stats},
      image,
      known(label_B),
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': dropout},
    )
    return jnp.asarray(logits_B), steps.like(new.get('batch_stats', stats), stats)

  def critic_metrics(real_B, fake_B, weight_B=None):
    loss_B = adversarial.discriminator_loss(
      config.loss, real_B, fake_B, config.real_label
    )
    return {
      'loss': metrics.mean(loss_B, weight_B),
      'real_accuracy': metrics.mean(real_B > real_above, weight_B),
      'fake_accuracy': metrics.mean(fake_B <= real_above, weight_B),
    }

  def critic_loss(params, stats, real, fake, label_B, dropout):
    real_B, of_real = look(params, stats['real'], real, label_B, fold(dropout, 0))
    fake_B, of_fake = look(params, stats['fake'], fake, label_B, fold(dropout, 1))
    found = critic_metrics(real_B, fake_B)
    loss = found['loss'].total / found['loss'].count
    if config.r1:
      logits_of = lambda image: look(params, of_real, image, label_B, dropout)[0]
      slope_B = adversarial.gradient_penalty(logits_of, real)
      found['r1'] = metrics.mean(slope_B)
      loss += 0.5 * config.r1 * slope_B.mean()
    return loss, ({'real': of_real, 'fake': of_fake}, found)

  def train_step(state, batch):
    rng = fold(state.rng, state.step)
    drop, judging = streams(rng, 'dropout', 'judge')
    params, opt_state = dict(state.params), dict(state.opt_state)
    stats = {name: state.model_state[name] for name in params}
    sums = []
    # Every discriminator step has real images and samples of its own. Written out:
    # gradients of convolutions are slow in a loop of XLA on the CPU.
    rows = steps.strided(batch, config.critic_steps)
    for k in range(config.critic_steps):
      image, label_B = rows['image'][k], rows['label'][k]
      z_BZ = jax.random.normal(fold(rng, k), (label_B.shape[0], config.noise))
      dropout = fold(drop, k)
      make = lambda p, z=z_BZ, y=label_B: generate(p, state.model_state['g'], z, y)
      # The last samples are those that the generator learns from: made once.
      fake, to_generator, stats['g'] = jax.vjp(make, params['g'], has_aux=True)
      grads, (stats['d'], found) = jax.grad(critic_loss, has_aux=True)(
        params['d'], stats['d'], 2 * data.to_unit(image) - 1, fake, label_B, dropout
      )
      found['d_grad_norm'] = Mean(optim.global_norm(grads), jnp.ones(()))
      params['d'], opt_state['d'] = steps.update(tx, grads, opt_state['d'], params['d'])
      sums.append(found)

    def fooled(fake):
      # The discriminator's statistics after this pass are dropped: its step is done.
      key = fold(dropout, 2)
      logits_B, _ = look(params['d'], stats['d']['fake'], fake, label_B, key)
      loss_B = adversarial.generator_loss(config.loss, logits_B)
      return loss_B.mean(), metrics.mean(loss_B)

    slope, loss = jax.grad(fooled, has_aux=True)(fake)
    (grads,) = to_generator(slope)
    params['g'], opt_state['g'] = steps.update(tx, grads, opt_state['g'], params['g'])
    ema = state.ema
    if config.ema_decay is not None:
      new = {'params': params['g'], 'batch_stats': stats['g']}
      ema = steps.average(ema, new, config.ema_decay, state.step)
    judged = judge.train(
      state.model_state['judge'], state.step, judging, data.to_unit(image), label_B
    )
    state = state._replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      model_state={**state.model_state, **stats, 'judge': judged},
      ema=ema,
    )
    return state, {
      **jax.tree.map(lambda *x: sum(x), *sums),
      'g_loss': loss,
      'g_grad_norm': Mean(optim.global_norm(grads), jnp.ones(())),
    }

  def sample(state, z_BZ, label_B):
    variables = state.ema
    if config.ema_decay is None:
      variables = {'params': state.params['g'], 'batch_stats': state.model_state['g']}
    image = generator.apply(variables, z_BZ, known(label_B), train=False)
    return (jnp.asarray(image) + 1) / 2

  report = SampleReport(data, judge, sample, config.noise, config.conditional)

  def health(state, fake, batch):
    """The discriminator on samples of the evaluation and unseen real images."""
    params, stats = state.params['d'], state.model_state['d']
    logits = lambda image, label_B, kind: jnp.asarray(
      discriminator.apply(
        {'params': params, 'batch_stats': stats[kind]},
        2 * image - 1,
        known(label_B),
        train=False,
      )
    )
    return critic_metrics(
      logits(data.to_unit(batch['image']), batch['label'], 'real'),
      logits(fake, report.asked(batch['index']), 'fake'),
      batch['weight'],
    )

  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=training(data.train, config, config.batch_size * config.critic_steps),
    evals=report.evaluations(config, health),
    warm_start=judge.warm_start(warm_start.restore_model),
    after_eval=report.remember(config.num_steps),
    functions={'sample': report.function()},
    metrics={**JUDGE, **metrics.DIVERSITY, **METRICS},
    headline=('samples/frechet', 'samples/confident', 'samples/duplicates'),
    figures=report.figures('samples'),
    overfit=None,
  )
