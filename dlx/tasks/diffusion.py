"""What experiments with a diffusion model of images share: its task, samples, pictures.

The mathematics is dlx/diffusion.py. Images are noised in [-1, 1] and given and judged
in [0, 1]. A network enters as (state, x_t, t_B, label_B) -> output, with the parameters
of the state that evaluations use.
"""

import dataclasses
import functools
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp

from dlx import diffusion, losses, metrics, sampling
from dlx.config import Group
from dlx.data.batches.resident import InOrder
from dlx.data.dataset import Dataset
from dlx.data.sets.images import ImageData
from dlx.data.sources import indexed
from dlx.experiment import Eval, Field, Figure, Function
from dlx.figures import diffusion as diffusion_figures
from dlx.figures import image_grid
from dlx.precision import EXACT
from dlx.state import Array, Batch, Key, Metric, Metrics, TrainState, seed_keys, stream
from dlx.tasks.judge import Judge

# (state, x_t, t_B, label_B) -> output, with the parameters that evaluations use.
Network = Callable[[TrainState, Array, Array, Array], Array]

# What `Task.sums` reports.
DENOISING: Mapping[str, Metric] = {
  'loss': Metric(
    'Loss',
    'lower',
    'Squared error of what the network predicts, a mean over pixels, images and noise '
    'levels with the weights of the training.',
    '',
    'loss',
  ),
  'eps_mse': Metric(
    'Error of the noise',
    'lower',
    'Mean squared error of the noise that the prediction implies, comparable between '
    'predictions and weights.',
    '',
    'loss',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig(Group):
  """Flags of a Task, `--config.diffusion.NAME`."""

  schedule: str = 'cosine'  # Schedule of the noise: cosine or linear.
  num_steps: int = 1000  # Steps of the schedule of the noise.
  prediction: str = 'v'  # What the network predicts: eps, v or x0.
  min_snr: float | None = None  # Bound of the weight of nearly clean steps: 5, or None.

  def __post_init__(self):
    super().__post_init__()
    self.choice('schedule', of=diffusion.SCHEDULES)
    self.choice('prediction', of=diffusion.PREDICTIONS)
    self.bounds('num_steps', least=25)
    self.bounds('min_snr', above=0)

  def task(self) -> 'Task':
    schedule = diffusion.SCHEDULES[self.schedule](self.num_steps)
    return Task(schedule, diffusion.PREDICTIONS[self.prediction], self.min_snr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerConfig(Group):
  """Flags of how samples are drawn, `--config.sampler.NAME`."""

  num_steps: int = 50  # Steps of the sampler, at most as many as of noise.
  eta: float = 0.0  # Share of noise in the sampler: 0 is DDIM, 1 ancestral.
  guidance: float = 0.0  # Scale of classifier-free guidance; 0: conditional network.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', least=1)
    self.bounds('eta', least=0, most=1)
    self.bounds('guidance', least=0)

  def sampling(
    self, network: Network, task: 'Task', data: ImageData, conditional: bool
  ) -> 'Sampling':
    steps = self.visited(task)(self.num_steps)
    return Sampling(network, task, steps, data, conditional, self.guidance)

  def visited(self, task: 'Task') -> 'Callable[[int], sampling.Steps]':
    """A number of steps -> those that the sampler visits."""
    return lambda number: sampling.ddim(task.schedule, number, self.eta)


class Task(NamedTuple):
  """What a network is asked, and what it should answer.

  Attributes:
    schedule: of the noise.
    prediction: what the network predicts.
    min_snr: bound of the weight of nearly clean steps; None: no weights.
  """

  schedule: diffusion.Schedule
  prediction: diffusion.Prediction
  min_snr: float | None = None

  def noised(self, image_BHWC: Array, t_B: Array, eps: Array) -> dict[str, Array]:
    """`x` at step `t` and the `target` for images in [0, 1]."""
    x_0 = 2 * image_BHWC - 1
    x_t = diffusion.q_sample(self.schedule, x_0, eps, t_B)
    target = self.prediction.target(self.schedule, x_0, eps, t_B)
    return {'x': x_t, 't': t_B, 'target': target}

  def for_training(self, key: Key, image_BHWC: Array) -> dict[str, Array]:
    """Fresh noise at stratified steps."""
    t_key, eps_key = jax.random.split(key)
    t_B = diffusion.stratified_times(
      t_key, image_BHWC.shape[0], self.schedule.num_steps
    )
    eps = jax.random.normal(eps_key, image_BHWC.shape, image_BHWC.dtype)
    return self.noised(image_BHWC, t_B, eps)

  def least(self, image_BHWC: Array, label_B: Array | None, draws: int = 64) -> Array:
    """`loss` of whoever knows these images: answers by their mean given x and t.

    At the highest noise no image is told from the others, so that it is above 0.

    Args:
      image_BHWC: in [0, 1], all there are.
      label_B: what the network is told too; None: nothing.
      draws: of noise for each image over which the mean is taken.
    """
    flat_BF = 2 * image_BHWC.reshape(len(image_BHWC), -1) - 1
    same_BB = jnp.ones((len(flat_BF),) * 2, bool)
    if label_B is not None:
      same_BB = label_B[:, None] == label_B[None]

    def one(key):
      rows = self.for_training(key, image_BHWC)
      signal, noise = (
        diffusion.at(table, rows['t'])[:, None]
        for table in (self.schedule.signal_T, self.schedule.noise_T)
      )
      x_BF = rows['x'].reshape(flat_BF.shape)
      away_BBF = x_BF[:, None] - signal[:, :, None] * flat_BF[None]
      score_BB = -(away_BBF**2).sum(-1) / (2 * noise**2)
      share_BB = jax.nn.softmax(jnp.where(same_BB, score_BB, -jnp.inf))
      x0_BF = jnp.dot(share_BB, flat_BF, precision=EXACT)
      eps_BF = (x_BF - signal * x0_BF) / noise
      as_image = lambda x: x.reshape(image_BHWC.shape)
      answer = self.prediction.target(
        self.schedule, as_image(x0_BF), as_image(eps_BF), rows['t']
      )
      found = self.sums(answer, rows)['loss']
      return found.total / found.count

    keys = jax.random.split(jax.random.key(0), draws)
    return jax.lax.map(one, keys).mean()

  def for_test(self, index_B: Array, image_BHWC: Array) -> dict[str, Array]:
    """Step and noise by the number of the example: every evaluation sees the same."""
    keys_B = _fold(jax.random.key(0), index_B)
    step = lambda key: jax.random.randint(key, (), 0, self.schedule.num_steps)
    eps = sampling.row_noise(keys_B, 0, image_BHWC.shape[1:])
    return self.noised(image_BHWC, jax.vmap(step)(keys_B), eps)

  def sums(self, output: Array, task: Batch, weight_B: Array | None = None) -> Metrics:
    """`loss`: weighted squared error; `eps_mse`: the same in errors of eps, unweighted.

    The second is comparable between predictions and weights.
    """
    error_B = losses.squared_error(output, task['target'])
    weight_T = diffusion.loss_weight(self.schedule, self.prediction, self.min_snr)
    ratio_T = diffusion.snr(self.schedule)
    eps_T = ratio_T / self.prediction.x0_errors(ratio_T)
    mean = lambda table_T: metrics.mean(
      error_B * diffusion.at(table_T, task['t']), weight_B
    )
    return {'loss': mean(weight_T), 'eps_mse': mean(eps_T)}


class Sampling(NamedTuple):
  """How samples are drawn. Sample i of a run starts from the same noise at every step.

  Attributes:
    network: (state, x_t, t_B, label_B) -> output.
    task: that it was trained for.
    steps: of the sampler.
    data: whose images it makes.
    conditional: whether the network heeds its labels.
    guidance: scale of classifier-free guidance; 0 where it does not.
  """

  network: Network
  task: Task
  steps: sampling.Steps
  data: ImageData
  conditional: bool = True
  guidance: float = 0.0

  def asked(self, index_B: Array) -> Array:
    """Class of sample i: one after the other."""
    return index_B % self.data.num_classes

  def images(self, state: TrainState, index_B: Array, label_B: Array) -> Array:
    """Samples by number, [B, H, W, C] in [0, 1]."""
    return self._of_keys(state, self._keys(state, index_B), label_B)

  def function(self, visit: Callable[[int], sampling.Steps]) -> Function:
    """`sample`: an image in [0, 1] of a seed, and of a class where one can be asked.

    Options `steps`, of the sampler, and `guidance`.

    Args:
      visit: a number of steps -> those of the sampler.
    """
    options = {'steps': len(self.steps.t_S), 'guidance': self.guidance}

    def call(state: TrainState, inputs: Batch, **chosen):
      chosen = options | chosen
      drawn = self._replace(steps=visit(chosen['steps']), guidance=chosen['guidance'])
      keys_B = seed_keys(inputs['seed'])
      label_B = inputs.get('label', jnp.zeros(keys_B.shape, jnp.int32))
      return {'image': drawn._of_keys(state, keys_B, label_B)}

    field = Field('label', (), 'int32', names=self.data.class_names)
    label = {'label': field} if self.conditional else {}
    return Function(
      call,
      {'seed': Field('seed', (), 'uint32'), **label},
      {'image': Field('image', self.data.shape, 'float32')},
      options if self.conditional else {'steps': options['steps']},
    )

  def judged(self, judge: Judge, state: TrainState, batch: Batch) -> Metrics:
    """Sums for `judge.summarize`, of as many samples as the batch has real images.

    Args:
      batch: raw test images with `index`, which numbers the samples too.
    """
    label_B = self.asked(batch['index'])
    return judge.sums(
      state.model_state['judge'],
      self.images(state, batch['index'], label_B),
      self.data.to_unit(batch['image']),
      batch['label'],
      batch['weight'],
      asked_B=label_B if self.conditional else None,
    )

  def evaluations(self, judge: Judge, batch_size: int) -> dict[str, Eval]:
    """`test`, the loss on test images, and `samples`, as the judge's config says."""

    def test(state, batch):
      asked = self.task.for_test(batch['index'], self.data.to_unit(batch['image']))
      output = self.network(state, asked['x'], asked['t'], batch['label'])
      return self.task.sums(output, asked, batch['weight'])

    config = judge.config
    judged = functools.partial(self.judged, judge)
    test_data, sample_data = (
      InOrder(indexed(self.data.test, limit), batch_size)
      for limit in (None, config.num_samples)
    )
    samples = Eval(judged, sample_data, config.every_steps, judge.summarize)
    return {'test': Eval(test, test_data), 'samples': samples}

  def path(self, state: TrainState, index_B: Array, label_B: Array):
    """x_t and the estimate of x_0 at every step, in [-1, 1], [S, B, H, W, C]."""
    keys_B = self._keys(state, index_B)
    return sampling.sample_path(*self._start(state, keys_B, label_B))

  def _keys(self, state: TrainState, index_B: Array) -> Key:
    return _fold(stream(state.rng, 'samples'), index_B)

  def _of_keys(self, state: TrainState, keys_B: Key, label_B: Array) -> Array:
    return (sampling.sample(*self._start(state, keys_B, label_B)) + 1) / 2

  def _start(self, state: TrainState, keys_B: Key, label_B: Array):
    output = sampling.guided(
      lambda x, t_B, label_B: self.network(state, x, t_B, label_B),
      label_B,
      self.data.num_classes,
      self.guidance,
    )
    denoise = sampling.denoiser(self.task.schedule, self.task.prediction, output)
    x_T = sampling.row_noise(keys_B, 0, self.data.shape)
    return denoise, self.steps, x_T, keys_B


def figures(
  sampling: Sampling, test_data: Dataset, *, columns: int = 8
) -> Mapping[str, Figure]:
  """`samples` (one row a class), `denoising`, `noising` and `signal_to_noise`.

  Args:
    test_data: raw images, for `noising`.
    columns: of `samples`.
  """
  data, schedule = sampling.data, sampling.task.schedule
  rows = min(data.num_classes, 12)  # Of many classes the first.

  def samples(state, key, batch):
    del key, batch
    label_B = jnp.repeat(jnp.arange(rows), columns)
    return sampling.images(state, jnp.arange(rows * columns), label_B)

  shown = diffusion_figures.spread(len(sampling.steps.t_S), 10)

  def denoising(state, key, batch):
    del key, batch
    index_B = jnp.arange(min(4, data.num_classes))
    return [x[shown] for x in sampling.path(state, index_B, sampling.asked(index_B))]

  levels = diffusion_figures.spread(schedule.num_steps, 10)

  def noising(state, key, batch):
    del state
    image_NHWC = data.to_unit(batch['image'][:4])
    eps = jax.random.normal(key, image_NHWC.shape)
    made = [
      sampling.task.noised(image_NHWC, jnp.full(len(image_NHWC), t), eps)['x']
      for t in levels
    ]
    return jnp.stack(made, axis=1)

  def nothing(state, key, batch):
    del state, key, batch
    return {}

  return {
    'samples': Figure(
      lambda images: image_grid(images, columns=columns, title='Samples'),
      compute=samples,
    ),
    'denoising': Figure(
      lambda tree: diffusion_figures.denoising(
        tree[0], tree[1], sampling.steps.t_S[shown]
      ),
      compute=denoising,
    ),
    'noising': Figure(
      lambda tree: diffusion_figures.noising(tree, levels),
      compute=noising,
      data=test_data,
    ),
    'signal_to_noise': Figure(
      lambda _: diffusion_figures.signal_to_noise(schedule), compute=nothing
    ),
  }


def _fold(key: Key, index_B: Array) -> Any:
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index_B)
