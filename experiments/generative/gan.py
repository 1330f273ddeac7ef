"""The first GAN: two players of dense layers (arXiv:1406.2661).

  python -m launch.train --exp=gan
  python -m launch.train --exp=gan --config.dataset=mnist --config.judge.workdir=CNN \
      --data_dir=DATA

noise -> 256 -> 512 -> image -> 512 -> 256 -> one logit, leaky ReLU, dropout in the
discriminator. A step is one update of the discriminator and one of the generator on the
same samples; what is sampled and judged is the average of the generator. `conditional`
asks for classes (arXiv:1411.1784, 1802.05637). CNN is the workdir of
`--exp=cnn --config.dataset=mnist`, whose net judges samples beside real images, see
dlx/tasks/judge.py; without it the first steps train one. `dcgan` is the same game with
convolutions.

Measured: MNIST, 20000 steps at 2e-4: 61.2 % confident (real images 95.3 %; 1 seed),
550 s on two cores with other programs beside.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.sets import images
from dlx.models import gan
from dlx.run.warm_start import restore_model
from dlx.state import Mean, create, streams
from dlx.tasks.image_generation import GAME, GameConfig, SampleReport
from dlx.tasks.judge import JUDGE, Judge
from dlx.train import curves, steps

fold = jax.random.fold_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 4000  # Steps of each player in the whole run.
  batch_size: int = 64  # Real images of one step, and samples.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  ema_decay: float | None = 0.999  # Decay of the averaged generator, which is sampled.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  conditional: bool = False  # Whether samples are of a class that is asked for.
  noise: int = 100  # Entries of z, the normal noise that becomes a sample.
  generator_features: tuple[int, ...] = (256, 512)  # Widths of the generator's layers.
  discriminator_features: tuple[int, ...] = (512, 256)  # The discriminator's widths.
  dropout: float = 0.3  # Share of the discriminator's hidden units dropped.
  game: GameConfig = GameConfig()
  lr: float = 5e-4  # Peak of both learning rates; a cosine to 0.
  b1: float = 0.5  # Decay of Adam's first moment.
  truncation: float | None = None  # Scale below 1 of noise that is judged too.
  judge: Judge.Config = Judge.Config()

  def __post_init__(self):
    super().__post_init__()
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('micro_batches', why='two players take turns on a batch')
    self.bounds('noise', 'generator_features', 'discriminator_features', least=1)
    self.bounds('dropout', 'b1', least=0, below=1)
    self.bounds('lr', 'truncation', above=0)


# The least run that still has every part.
SMALL = Config.small(
  noise=8,
  generator_features=(8,),
  discriminator_features=(8,),
  judge=Judge.Config(num_steps=2, features=(4,), dense=8, num_samples=32),
)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  shared = {
    'num_classes': data.num_classes if config.conditional else None,
    **config.dtypes,
  }
  generator = gan.Generator(
    shape=data.shape, features=config.generator_features, **shared
  )
  discriminator = gan.Discriminator(
    features=config.discriminator_features, dropout=config.dropout, **shared
  )
  tx = optim.adam(optim.cosine(config.lr, config.num_steps), config.b1)
  tx = optim.clip(tx, **config.clipping)
  judge = Judge(data, config.judge, config.param_dtype)
  known = lambda label_B: label_B if config.conditional else None

  def init(key):
    label_B, z_BZ = jnp.zeros((1,), jnp.int32), jnp.zeros((1, config.noise))
    image = jnp.zeros((1, *data.shape))
    g = generator.init(fold(key, 0), z_BZ, known(label_B), train=False)
    d = discriminator.init(fold(key, 1), image, known(label_B), train=False)
    params = {'g': g['params'], 'd': d['params']}
    model_state = {'judge': judge.init(fold(key, 3)), 'history': report.blank_history()}
    return create(
      params,
      {name: tx.init(p) for name, p in params.items()},
      fold(key, 2),
      model_state=model_state,
      ema=steps.initial_average(params['g'], config.ema_decay),
    )

  def generate(params, z_BZ, label_B):
    """Samples in [-1, 1]."""
    return jnp.asarray(
      generator.apply({'params': params}, z_BZ, known(label_B), train=False)
    )

  def look(params, image, label_B, dropout=None):
    """Logits of the discriminator; without a key of dropout as in evaluation."""
    logits_B = discriminator.apply(
      {'params': params},
      image,
      known(label_B),
      train=dropout is not None,
      rngs=None if dropout is None else {'dropout': dropout},
    )
    return jnp.asarray(logits_B)

  def critic_loss(params, real, fake, label_B, dropout):
    real_B = look(params, real, label_B, fold(dropout, 0))
    fake_B = look(params, fake, label_B, fold(dropout, 1))
    found = config.game.critic(real_B, fake_B)
    return found['loss'].total / found['loss'].count, found

  def update(player, params, opt_state, grads, step):
    """Moves a player, in place; its curves."""
    old = params[player], opt_state[player]
    new = steps.update(tx, grads, *reversed(old))
    params[player], opt_state[player] = new
    return curves.between(config, tx, step, old, new, grads, player)

  def train_step(state, batch):
    rng = fold(state.rng, state.step)
    drop, judging = streams(rng, 'dropout', 'judge')
    dropout = fold(drop, 0)
    params, opt_state = dict(state.params), dict(state.opt_state)
    image, label_B = data.to_unit(batch['image']), batch['label']
    z_BZ = jax.random.normal(fold(rng, 0), (label_B.shape[0], config.noise))
    # Both players see the same samples: made once.
    make = lambda p: generate(p, z_BZ, label_B)
    fake, to_generator = jax.vjp(make, params['g'])
    grads, sums = jax.grad(critic_loss, has_aux=True)(
      params['d'], 2 * image - 1, fake, label_B, dropout
    )
    sums['d_grad_norm'] = Mean(optim.global_norm(grads), jnp.ones(()))
    sums |= update('d', params, opt_state, grads, state.step)

    def fooled(fake):
      logits_B = look(params['d'], fake, label_B, fold(dropout, 2))
      loss_B = config.game.generator(logits_B)
      return loss_B.mean(), metrics.mean(loss_B)

    slope, sums['g_loss'] = jax.grad(fooled, has_aux=True)(fake)
    (grads,) = to_generator(slope)
    sums['g_grad_norm'] = Mean(optim.global_norm(grads), jnp.ones(()))
    sums |= update('g', params, opt_state, grads, state.step)
    ema = state.ema
    if config.ema_decay is not None:
      ema = steps.average(ema, params['g'], config.ema_decay, state.step)
    judged = judge.train(
      state.model_state['judge'], state.step, judging, image, label_B
    )
    return state._replace(
      step=state.step + 1,
      params=params,
      opt_state=opt_state,
      model_state={**state.model_state, 'judge': judged},
      ema=ema,
    ), sums

  def sample(state, z_BZ, label_B):
    params = state.params['g'] if config.ema_decay is None else state.ema
    return (generate(params, z_BZ, label_B) + 1) / 2

  report = SampleReport(data, judge, sample, config.noise, config.conditional)

  def health(state, fake, batch):
    """The discriminator on samples of the evaluation and unseen real images."""
    logits = lambda image, label_B: look(state.params['d'], 2 * image - 1, label_B)
    return config.game.critic(
      logits(data.to_unit(batch['image']), batch['label']),
      logits(fake, report.asked(batch['index'])),
      batch['weight'],
    )

  return experiment.Experiment(
    init,
    train_step,
    training(data.train, config),
    report.evaluations(config.eval_batch_size, config.truncation, health),
    judge.warm_start(restore_model),
    after_eval=report.remember(config.num_steps),
    functions={'sample': report.function()},
    metrics={**JUDGE, **metrics.DIVERSITY, **GAME},
    headline=('samples/frechet', 'samples/confident', 'samples/duplicates'),
    figures=report.figures('samples'),
    overfit='the losses of two players settle where neither gains, not at 0',
  )
