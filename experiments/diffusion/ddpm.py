"""Diffusion model of small images (DDPM, arXiv:2006.11239), with or without classes.

  python -m launch.train --exp=ddpm
  python -m launch.train --exp=ddpm --config.dataset=mnist --config.num_steps=15000 \
      --config.channels=64,64 --config.attention=1 --config.ema_decay=0.999 \
      --config.guidance=0.5 --config.sample_every_steps=2500 --config.judge=JUDGE \
      --data_dir=DATA
  python -m launch.train --exp=ddpm --config.dataset=cifar10 --config.patch=1 \
      --config.num_steps=200000 --config.batch_size=128 --config.lr=2e-4 \
      --config.channels=128,256,256,256 --config.attention=1 --config.blocks=2 \
      --config.dropout=0.1 --config.ema_decay=0.9999 --config.clip_norm=1.0 \
      --config.sample_every_steps=20000 --config.judge=JUDGE --data_dir=DATA

JUDGE is the workdir of a cnn on the same set (`--exp=cnn --config.dataset=mnist`);
without it the first steps of the run train one. Unconditional: the same with
`--config.conditional=False --config.guidance=0`. The third command is meant for a GPU.

A U-Net learns to see the clean image in a noised one; DDIM (arXiv:2010.02502) walks
from noise to an image with the average of its parameters. `test` is the training loss
on test images, whose noise belongs to the example; `eps_mse` is its unweighted error of
the noise, comparable between predictions. `samples` is what a judge says of
`num_samples` images, see dlx/tasks/judge.py. The floor of `overfit` is a loss over all
levels of noise: at the highest, 16 images are not told apart. All measured figures
stand in experiments/README.md.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import diffusion, experiment, optim, sampling
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.sets import images
from dlx.data.sources import indexed
from dlx.layers.embeddings import drop_labels
from dlx.models.unet import UNet
from dlx.run import warm_start
from dlx.state import create, streams
from dlx.tasks import diffusion as denoising
from dlx.tasks.judge import JUDGE, Judge, check_judge
from dlx.train import steps

fold = jax.random.fold_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1000  # Optimiser steps of the whole run.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  ema_decay: float | None = 0.995  # Decay of averaged parameters, used by the sampler.
  conditional: bool = True  # Whether samples are of a class that is asked for.
  label_dropout: float = 0.1  # Share of examples without their class, for guidance.
  guidance: float = 0.0  # Scale of classifier-free guidance; 0: conditional network.
  schedule: str = 'cosine'  # Of the noise: cosine or linear.
  noise_steps: int = 1000  # Steps of the schedule.
  prediction: str = 'v'  # What the network predicts: eps, v or x0.
  min_snr: float | None = None  # Bound of the weight of nearly clean steps: 5, or None.
  sample_steps: int = 50  # Steps of the sampler.
  eta: float = 0.0  # Share of noise in the sampler: 0 is DDIM, 1 ancestral.
  num_samples: int = 1000  # Samples that are judged; at most the test images.
  sample_every_steps: int | None = None  # Steps between judgements; None: evaluations.
  judge: str | None = None  # Workdir of a run of cnn that judges; None: trained here.
  judge_steps: int = 300  # First steps that train the judge where there is no workdir.
  channels: tuple[int, ...] = (32, 64)  # Of each level of the U-Net.
  blocks: int = 1  # Residual blocks of a level.
  attention: tuple[int, ...] = ()  # Levels with self-attention; none: no attention.
  patch: int = 2  # Pixels a side that become the channels of one position.
  dropout: float = 0.0  # Share of features dropped in the blocks.
  lr: float = 2e-3  # Peak of the learning rate: a warm-up, then a cosine to 0.
  warmup_steps: int = 100  # Steps of the warm-up, at most half of the run.

  def __post_init__(self):
    super().__post_init__()
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.choice('schedule', of=diffusion.SCHEDULES)
    self.choice('prediction', of=diffusion.PREDICTIONS)
    self.bounds('label_dropout', 'dropout', least=0, below=1)
    self.bounds('guidance', 'warmup_steps', least=0)
    possible = self.guidance == 0 or (self.conditional and self.label_dropout > 0)
    self.require('guidance', possible, '0 without conditional and label_dropout')
    self.bounds('min_snr', 'lr', above=0)
    self.bounds('noise_steps', least=25)
    self.bounds('sample_steps', least=1, most=self.noise_steps)
    self.bounds('eta', least=0, most=1)
    self.bounds('sample_every_steps', 'num_samples', 'blocks', 'patch', least=1)
    self.bounds('channels', least=1, some=True)
    self.bounds('attention', least=0, below=len(self.channels))
    check_judge(self)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = UNet(
    out_channels=data.shape[-1],
    channels=config.channels,
    blocks=config.blocks,
    attention=config.attention,
    num_classes=data.num_classes if config.conditional else None,
    patch=config.patch,
    dropout=config.dropout,
    **config.dtypes,
  )
  warmup = min(config.warmup_steps, config.num_steps // 2)
  tx = optim.adam(optim.warmup_cosine(config.lr, config.num_steps, warmup))
  tx = optim.clip(tx, **config.clipping)
  schedule = diffusion.SCHEDULES[config.schedule](config.noise_steps)
  prediction = diffusion.PREDICTIONS[config.prediction]
  task = denoising.Task(schedule, prediction, config.min_snr)
  judge = Judge(
    data, workdir=config.judge, num_steps=config.judge_steps, dtype=config.param_dtype
  )

  def init(key):
    one = jnp.zeros((1,), jnp.int32)
    inputs = jnp.zeros((1, *data.shape)), one, one if config.conditional else None
    params = model.init(fold(key, 0), *inputs, train=False)['params']
    return create(
      params,
      tx.init(params),
      fold(key, 1),
      model_state={'judge': judge.init(fold(key, 2))},
      ema=steps.initial_average(params, config.ema_decay),
    )

  def network(params, x_BHWC, t_B, label_B, train=False, rngs=None):
    label_B = label_B if config.conditional else None
    out = model.apply({'params': params}, x_BHWC, t_B, label_B, train=train, rngs=rngs)
    return jnp.asarray(out)

  def loss_fn(params, model_state, batch, rng):
    inputs = batch['x'], batch['t'], batch['label']
    output = network(params, *inputs, train=True, rngs={'dropout': rng})
    sums = task.sums(output, batch)
    return sums['loss'], (model_state, sums)

  def train_step(state, batch):
    rng = fold(state.rng, state.step)
    # Noise is that of the whole batch, so that micro-batches do not change it.
    noise, drop, judging = streams(rng, 'noise', 'labels', 'judge')
    image_BHWC, label_B = data.to_unit(batch['image']), batch['label']
    asked = task.for_training(noise, image_BHWC)
    null = data.num_classes
    asked['label'] = drop_labels(drop, label_B, config.label_dropout, null)
    grads, _, sums = steps.gradients(
      loss_fn, state.params, (), asked, rng, micro_batches=config.micro_batches
    )
    judged = judge.train(
      state.model_state['judge'], state.step, judging, image_BHWC, label_B
    )
    return steps.apply(
      tx, state, grads, ema_decay=config.ema_decay, model_state={'judge': judged}
    ), sums

  def answer(state, x_BHWC, t_B, label_B):
    return network(state.averaged, x_BHWC, t_B, label_B)

  def test(state, batch):
    asked = task.for_test(batch['index'], data.to_unit(batch['image']))
    output = answer(state, asked['x'], asked['t'], batch['label'])
    return task.sums(output, asked, batch['weight'])

  visited = sampling.ddim(schedule, config.sample_steps, config.eta)
  drawn = denoising.Sampling(
    answer, task, visited, data, config.conditional, config.guidance
  )
  test_data, sample_data = (
    InOrder(indexed(data.test, limit), config.eval_batch_size)
    for limit in (None, config.num_samples)
  )
  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=training(data.train, config),
    evals={
      'test': experiment.Eval(test, test_data),
      'samples': experiment.Eval(
        lambda state, batch: drawn.judged(judge, state, batch),
        sample_data,
        config.sample_every_steps,
        judge.summarize,
      ),
    },
    warm_start=judge.warm_start(warm_start.restore_model),
    functions={
      'sample': drawn.function(lambda n: sampling.ddim(schedule, n, config.eta))
    },
    metrics={**denoising.DENOISING, **JUDGE},
    headline=('samples/frechet', 'samples/confident', 'test/eps_mse'),
    figures=denoising.figures(drawn, test_data),
    overfit=('loss', 0.35),
  )
