"""What is asked of every generator that turns noise into images of a labelled set.

  report = SampleReport(data, judge, sample, noise=64, conditional=True)
  evals = report.evaluations(config, health)       judged samples, beside real images
  figures = report.figures()                       samples, interpolation, classes
  model_state['history'] = report.blank_history()  samples over training: a picture that
  after_eval = report.remember(num_steps)          grows at every evaluation

Noise and class of a sample are functions of the run's key and of the sample's number
alone: neither the batch size nor the step changes them, so that pictures made at
different steps show the same noise.
"""

import dataclasses
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp

from dlx import figures, metrics
from dlx.config import Group
from dlx.data.batches.resident import InOrder
from dlx.data.sets.images import ImageData
from dlx.data.sources import indexed
from dlx.experiment import Eval, Field, Figure, Function
from dlx.losses import adversarial
from dlx.metrics.generation import diversity, place_rows
from dlx.sampling.interpolation import slerp
from dlx.state import Array, Batch, Key, Metric, Metrics, TrainState, seed_keys, stream
from dlx.tasks.judge import Judge

HISTORY = 8  # Rows of the picture of samples over training.
COLUMNS = 10
NEIGHBOURS = 1000  # Samples among which the nearest other is looked for.

Health = Callable[[TrainState, Array, Batch], Metrics]
# What the train step of two players and `GameConfig.critic` report.
GAME: Mapping[str, Metric] = {
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
class GameConfig(Group):
  """Flags of the losses of two players, `--config.game.NAME`."""

  loss: str = 'non_saturating'  # non_saturating, minimax, least_squares or hinge.
  real_label: float = 0.9  # Target for real images: one-sided label smoothing.

  def __post_init__(self):
    super().__post_init__()
    self.choice('loss', of=adversarial.KINDS)
    self.bounds('real_label', above=0, most=1)
    smooth = self.loss != 'hinge' or self.real_label == 1
    self.require('real_label', smooth, '1 with loss=hinge')

  def critic(
    self, real_B: Array, fake_B: Array, weight_B: Array | None = None
  ) -> dict[str, Any]:
    """`loss` of the discriminator, and what it gets right, from its logits."""
    loss_B = adversarial.discriminator_loss(self.loss, real_B, fake_B, self.real_label)
    above = adversarial.threshold(self.loss, self.real_label)
    return {
      'loss': metrics.mean(loss_B, weight_B),
      'real_accuracy': metrics.mean(real_B > above, weight_B),
      'fake_accuracy': metrics.mean(fake_B <= above, weight_B),
    }

  def generator(self, fake_B: Array) -> Array:
    """Loss of the generator [B], from the discriminator's logits of its samples."""
    return adversarial.generator_loss(self.loss, fake_B)


@dataclasses.dataclass(frozen=True)
class SampleReport:
  """Evaluations and figures of a generator. Holds no arrays.

  Attributes:
    data: the labelled set.
    judge: its state is `model_state['judge']`.
    sample: (state, z [B, Z], label [B]) -> images in [0, 1], as evaluation sees them.
    noise: Z, entries of the noise.
    conditional: whether `sample` regards the label; samples then ask for class
      `number % K`.
  """

  data: ImageData
  judge: Judge
  sample: Callable[[TrainState, Array, Array], Array]
  noise: int
  conditional: bool

  def z(self, rng: Key, number_B: Array, name: str = 'samples') -> Array:
    """Standard normal noise of samples by number, [B, Z], from a stream by name."""
    key = stream(rng, name)
    return self._normal(jax.vmap(jax.random.fold_in, (None, 0))(key, number_B))

  def asked(self, number_B: Array) -> Array:
    """Class that each sample is asked for, [B]."""
    return number_B % self.data.num_classes

  def make(self, state: TrainState, number_B: Array, scale: float = 1.0) -> Array:
    """Samples by number, in [0, 1]."""
    z_BZ = scale * self.z(state.rng, number_B)
    return self.sample(state, z_BZ, self.asked(number_B))

  def function(self) -> Function:
    """`sample`: an image in [0, 1] of a seed, and of a class where one can be asked.

    Option `scale`: of the noise; below 1 it is truncated.
    """

    def call(state: TrainState, inputs: Batch, *, scale: float = 1.0):
      z_BZ = scale * self._normal(seed_keys(inputs['seed']))
      label_B = inputs.get('label', jnp.zeros(z_BZ.shape[:1], jnp.int32))
      return {'image': self.sample(state, z_BZ, label_B)}

    field = Field('label', (), 'int32', names=self.data.class_names)
    label = {'label': field} if self.conditional else {}
    return Function(
      call,
      {'seed': Field('seed', (), 'uint32'), **label},
      {'image': Field('image', self.data.shape, 'float32')},
      {'scale': 1.0},
    )

  def evaluation(
    self,
    num_samples: int,
    batch_size: int,
    *,
    every: int | None = None,
    scale: float = 1.0,
    health: Health | None = None,
  ) -> Eval:
    """Samples judged beside as many images of the test split; see `Judge.summarize`.

    Also the mean distance of a sample to the nearest other one, `nearest`, beside that
    of real images, `nearest_real`, and `duplicates`: the share of samples that have a
    nearer neighbour than all but 1 % of the real images have (0.01 is the share of
    real ones). Among the first 1000.

    Args:
      num_samples: at most as many as the test split has images.
      batch_size: of the evaluation; changes no figure.
      every: steps between evaluations; None: as the run's others.
      scale: of the noise: below 1 it is truncated, and samples are better and more
        alike; say so beside every figure.
      health: (state, samples in [0, 1], batch of real images) -> more sums.
    """
    source = indexed(self.data.test, num_samples)
    rows = min(source.size or num_samples, NEIGHBOURS)

    def step(state, batch):
      fake = self.make(state, batch['index'], scale)
      real = self._unit(batch['image'])
      weight_B = batch['weight']
      place = lambda image: place_rows(image, batch['index'], weight_B, rows)
      return {
        **self.judge.sums(
          state.model_state['judge'],
          fake,
          real,
          batch['label'],
          weight_B,
          self.asked(batch['index']) if self.conditional else None,
        ),
        'fake_rows': place(fake),
        'real_rows': place(real),
        **({} if health is None else health(state, fake, batch)),
      }

    def summarize(found: Metrics) -> Mapping[str, Any]:
      found = dict(found)
      pair = found.pop('fake_rows'), found.pop('real_rows')
      count = found['confident'].count
      return {**self.judge.summarize(found), **diversity(*pair, count)}

    return Eval(step, InOrder(source, batch_size), every=every, summarize=summarize)

  def evaluations(
    self, batch_size: int, truncation: float | None = None, health: Health | None = None
  ) -> dict[str, Eval]:
    """`samples`, as many and as often as the judge's config says; and `truncated`.

    Args:
      batch_size: of the evaluations; changes no figure.
      truncation: scale of the noise of `truncated`; None: there is no such evaluation.
      health: see `evaluation`.
    """
    scales = {'samples': 1.0}
    if truncation is not None:
      scales['truncated'] = truncation
    config = self.judge.config
    return {
      name: self.evaluation(
        config.num_samples,
        batch_size,
        every=config.every_steps,
        scale=scale,
        health=health,
      )
      for name, scale in scales.items()
    }

  def blank_history(self) -> dict[str, Array]:
    """`image` uint8 [HISTORY, K, H, W, C] and `step` int32 [HISTORY]: -1, nothing."""
    shape = (HISTORY, self.data.num_classes, *self.data.shape)
    return {
      'image': jnp.zeros(shape, jnp.uint8),
      'step': jnp.full((HISTORY,), -1, jnp.int32),
    }

  def remember(self, num_steps: int) -> Callable[[TrainState, Any], TrainState]:
    """For `Experiment.after_eval`: samples of the same noise into the history.

    Row r holds those of the last evaluation in part r of HISTORY equal parts.
    """

    def after_eval(state: TrainState, found: Any) -> TrainState:
      del found
      number_K = jnp.arange(self.data.num_classes)
      image = jnp.round(255 * self.make(state, number_K)).astype(jnp.uint8)
      row = history_row(state.step, num_steps)
      old = state.model_state['history']
      history = {
        'image': old['image'].at[row].set(image),
        'step': old['step'].at[row].set(state.step),
      }
      return state._replace(model_state={**state.model_state, 'history': history})

    return after_eval

  def figures(self, evaluation: str) -> dict[str, Figure]:
    """Pictures; `evaluation` is the name of the Eval whose classes are drawn."""
    names = self.data.class_names
    num_classes = self.data.num_classes
    titles = names if self.conditional else None

    def grid(state, key, batch):
      del key, batch
      number_B = jnp.arange(num_classes * COLUMNS)
      image = self.make(state, number_B)
      # Number n asks for class n % K: the transpose has one row a class.
      image = image.reshape(COLUMNS, num_classes, *image.shape[1:])
      return image.swapaxes(0, 1)

    def between(state, key, batch):
      del key, batch
      ends = self.z(state.rng, jnp.arange(2 * num_classes), 'interpolation')
      share = jnp.linspace(0, 1, COLUMNS)
      z_KSZ = slerp(ends[:num_classes], ends[num_classes:], share, norm='linear')
      label_B = jnp.repeat(jnp.arange(num_classes), COLUMNS)
      image = self.sample(state, z_KSZ.reshape(-1, self.noise), label_B)
      return image.reshape(num_classes, COLUMNS, *image.shape[1:])

    def history(state, key, batch):
      del key, batch
      return state.model_state['history']

    def draw_history(found):
      done = found['step'] >= 0
      if not done.any():
        raise ValueError('No evaluation yet.')
      return figures.mosaic(
        found['image'][done],
        [f'step {step}' for step in found['step'][done]],
        title='The same noise over training',
        value_range=(0, 255),
      )

    return {
      'samples': Figure(lambda x: figures.mosaic(x, titles, title='Samples'), grid),
      'interpolation': Figure(
        lambda x: figures.mosaic(x, titles, title='From one noise to another'), between
      ),
      'over_training': Figure(draw_history, history),
      'classes': Figure(
        lambda found: figures.class_shares(
          found['classes'], names, float(found['class_entropy'])
        ),
        eval=evaluation,
      ),
    }

  def _normal(self, keys_B: Key) -> Array:
    return jax.vmap(lambda key: jax.random.normal(key, (self.noise,)))(keys_B)

  def _unit(self, image: Array) -> Array:
    return self.data.to_unit(image)


def history_row(step: Array, num_steps: int) -> Array:
  """Which of HISTORY equal parts of the run `step` (1 to num_steps) ends or is in."""
  # In floats: step * HISTORY could overflow int32.
  part = jnp.ceil(step.astype(jnp.float32) / num_steps * HISTORY).astype(jnp.int32) - 1
  return jnp.clip(part, 0, HISTORY - 1)
