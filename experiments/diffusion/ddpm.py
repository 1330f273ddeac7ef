"""Diffusion model of small images (DDPM, arXiv:2006.11239), with or without classes.

  python -m launch.train --exp=ddpm
  python -m launch.train --exp=ddpm --config.dataset=mnist --config.num_steps=15000 \
      --config.unet.channels=64,64 --config.unet.attention=1 --config.ema_decay=0.999 \
      --config.sampler.guidance=0.5 --config.judge.every_steps=2500 \
      --config.judge.workdir=JUDGE --data_dir=DATA
  python -m launch.train --exp=ddpm --config.dataset=cifar10 --config.unet.patch=1 \
      --config.num_steps=200000 --config.batch_size=128 --config.lr=2e-4 \
      --config.unet.channels=128,256,256,256 --config.unet.attention=1 \
      --config.unet.blocks=2 --config.unet.dropout=0.1 --config.ema_decay=0.9999 \
      --config.judge.every_steps=20000 --config.judge.workdir=JUDGE \
      --config.clip_norm=1.0 --data_dir=DATA

JUDGE is a run of cnn on the same set; without it the first steps train one. The third
command is meant for a GPU. Unconditional: `--config.conditional=False`, guidance 0.

A U-Net learns to see the clean image in a noised one; DDIM (arXiv:2010.02502) walks
from noise to an image with the average of its parameters. `test` is the training loss
on test images, whose noise belongs to the example; `eps_mse` is its unweighted error of
the noise, comparable between predictions. `samples` is what a judge says of samples,
see dlx/tasks/judge.py.

Measured: MNIST, 4000 steps, 99.4 % confident (1 seed).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.choose import training
from dlx.data.sets import images
from dlx.layers.embeddings import drop_labels
from dlx.models.unet import UNetConfig
from dlx.run.warm_start import restore_model
from dlx.state import create, streams
from dlx.tasks import diffusion as denoising
from dlx.tasks.judge import JUDGE, Judge
from dlx.train import curves, steps

fold = jax.random.fold_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1000  # Optimiser steps of the whole run.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  ema_decay: float | None = 0.995  # Decay of averaged parameters, used by the sampler.
  conditional: bool = True  # Whether samples are of a class that is asked for.
  label_dropout: float = 0.1  # Share of examples shown without a class, for guidance.
  diffusion: denoising.TaskConfig = denoising.TaskConfig()
  sampler: denoising.SamplerConfig = denoising.SamplerConfig()
  judge: Judge.Config = Judge.Config()
  unet: UNetConfig = UNetConfig()
  lr: float = 2e-3  # Peak of the learning rate: a warm-up, then a cosine to 0.
  warmup_steps: int = 100  # Steps of the warm-up, at most half of the run.

  def __post_init__(self):
    super().__post_init__()
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.bounds('label_dropout', least=0, below=1)
    self.bounds('warmup_steps', least=0)
    known = self.conditional and self.label_dropout > 0
    possible = self.sampler.guidance == 0 or known
    self.require('sampler.guidance', possible, '0 without conditional, label_dropout')
    self.bounds('sampler.num_steps', least=1, most=self.diffusion.num_steps)
    self.bounds('lr', above=0)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr',)
# The least run that still has every part.
SMALL = Config.small(
  sampler=denoising.SamplerConfig(num_steps=3),
  judge=Judge.Config(num_steps=2, features=(4,), dense=8, num_samples=32),
  unet=UNetConfig(channels=(16,)),
  warmup_steps=2,
)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  num_classes = data.num_classes if config.conditional else None
  model = config.unet.module(data.shape[-1], num_classes, **config.dtypes)
  warmup = min(config.warmup_steps, config.num_steps // 2)
  tx = optim.adam(optim.warmup_cosine(config.lr, config.num_steps, warmup))
  tx = optim.clip(tx, **config.clipping)
  gradients = functools.partial(steps.gradients, micro_batches=config.micro_batches)
  task = config.diffusion.task()
  judge = Judge(data, config.judge, config.param_dtype)

  def init(key):
    one = jnp.zeros((1,), jnp.int32)
    inputs = jnp.zeros((1, *data.shape)), one, one if config.conditional else None
    params = model.init(fold(key, 0), *inputs, train=False)['params']
    ema = steps.initial_average(params, config.ema_decay)
    judged = {'judge': judge.init(fold(key, 2))}
    return create(params, tx.init(params), fold(key, 1), model_state=judged, ema=ema)

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
    image, label_B = data.to_unit(batch['image']), batch['label']
    rows = task.for_training(noise, image)
    rows['label'] = drop_labels(drop, label_B, config.label_dropout, data.num_classes)
    grads, _, sums = gradients(loss_fn, state.params, (), rows, rng)
    judged = judge.train(
      state.model_state['judge'], state.step, judging, image, label_B
    )
    changes = {'ema_decay': config.ema_decay, 'model_state': {'judge': judged}}
    new = steps.apply(tx, state, grads, **changes)
    return new, {**sums, **curves.of(config, tx, state, new, grads)}

  def answer(state, x_BHWC, t_B, label_B):
    return network(state.averaged, x_BHWC, t_B, label_B)

  def least(batch):
    label_B = batch['label'] if config.conditional else None
    return task.least(data.to_unit(batch['image']), label_B)

  drawn = config.sampler.sampling(answer, task, data, config.conditional)
  evals = drawn.evaluations(judge, config.eval_batch_size)
  return experiment.Experiment(
    init,
    train_step,
    training(data.train, config),
    evals,
    judge.warm_start(restore_model),
    functions={'sample': drawn.function(config.sampler.visited(task))},
    metrics={**denoising.DENOISING, **JUDGE},
    headline=('samples/frechet', 'samples/confident', 'test/eps_mse'),
    figures=denoising.figures(drawn, evals['test'].data),
    overfit=experiment.Overfit(above=0.2, least=least),  # 0.16 after 300.
  )
