"""Linear probe: a linear classifier on the features of an encoder that stays as it is.

  python -m launch.train --exp=linear_probe
  python -m launch.train --exp=linear_probe --config.encoder.workdir=RUN \
      --config.dataset=mnist --config.encoder.strides=2,2,2,1 --config.num_steps=1500 \
      --config.batch_size=256 --data_dir=DATA

RUN is a run with an encoder of the same shape under `params/encoder`, such as one of
moco. Without one the first steps train the encoder, without labels, by contrasting two
views within the batch (SimCLR, arXiv:2002.05709); `encoder.num_steps=0` probes random
weights. Once frozen, it lies in model_state, where no optimiser reaches it, and
`train/frozen` is 1 while it has the checksums of the step at which it was frozen. All
labels are used; moco's own `probe` fits few. Figures stand in experiments/README.md.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, losses, optim
from dlx.data.images.levels import normalise
from dlx.data.images.views import two_views, view_of
from dlx.data.sets import images
from dlx.losses import contrastive
from dlx.models import conv_encoder as models
from dlx.precision import unit
from dlx.run.checkpoint.checksums import checksum
from dlx.run.warm_start import restore_encoder
from dlx.state import Mean, streams
from dlx.tasks import representation
from dlx.tasks.classification import image_classifier
from dlx.tasks.representation import pictures
from dlx.train import auxiliary, steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(models.EncoderConfig, auxiliary.Config):
  num_steps: int = 300  # First steps that train an own encoder; at most half of all.
  lr: float = 2e-3  # Peak of the learning rate of the steps that train the encoder.
  temperature: float = 0.1  # Divisor of similarities where the encoder is trained.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('temperature', above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Steps of the whole run, those that train the encoder included.
  batch_size: int = 128  # Images of one global batch.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  encoder: Encoder = Encoder()
  lr: float = 3e-2  # Peak of the cosine learning rate of the linear layer.
  weight_decay: float = 0.0  # Decoupled decay of the weights of the linear layer.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('weight_decay', least=0)
    self.bounds('lr', above=0)
    if self.encoder.first_steps(self.num_steps):
      other = 'unless encoder.workdir is given or encoder.num_steps=0'
      self.unused('micro_batches', why=other)
      wide = self.compute_dtype != 'float16'
      self.require('compute_dtype', wide, f'another, {other}')


# The least run that still has every part.
SMALL = Config(
  num_steps=6,
  batch_size=16,
  log_every_steps=2,
  eval_every_steps=3,
  encoder=Encoder(features=(8, 8), strides=(2, 2), groups=4, num_steps=2),
)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  view = view_of(data.shape)
  encoder = config.encoder.module(**config.dtypes)
  projected = models.ProjectedEncoder(encoder, models.ProjectionHead(**config.dtypes))
  first = config.encoder.first_steps(config.num_steps // 2)
  rate = optim.warmup_cosine(config.encoder.lr, max(first, 1), first // 4)
  pre_tx = optim.clip(optim.adam(rate), **config.clipping)
  rate = optim.cosine(config.lr, config.num_steps - first)

  def weights(state):
    return state.model_state['encoder']['params']

  def apply(module, params, image) -> Any:
    image = normalise(image, data.mean, data.std)
    return module.apply({'params': params}, image)

  def pooled(state, image):
    return apply(encoder, weights(state), image).pooled_BF

  probe = image_classifier(  # The classifier proper.
    config,
    data,
    model=models.LinearProbe(encoder, data.num_classes, **config.dtypes),
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.adamw(rate, weight_decay=config.weight_decay),
    figures=pictures(data, pooled=pooled),
  )

  def init(key):
    state, pretrain = probe.init(key), ()
    params = weights(state)
    if first:
      image = jnp.zeros((1, *data.shape), jnp.float32)
      head = projected.init(jax.random.fold_in(key, 2), image)['params']['head']
      pretrain = {'head': head, 'tx': pre_tx.init({'encoder': params, 'head': head})}
    frozen = jax.tree.map(checksum, params)
    opt_state = {'probe': state.opt_state, 'pretrain': pretrain, 'frozen': frozen}
    return state._replace(opt_state=opt_state)

  def pretrain(params, pretrain, rng, image):
    def loss_fn(both):
      views = two_views(view, rng, data.to_unit(image))
      vectors = [unit(apply(projected, both, x)) for x in views]
      found = contrastive.in_batch_info_nce(*vectors, config.encoder.temperature)
      return found.loss_B.mean()

    both = {'encoder': params, 'head': pretrain['head']}
    loss, grads = jax.value_and_grad(loss_fn)(both)
    both, moments = steps.update(pre_tx, grads, pretrain['tx'], both)
    return both['encoder'], {'head': both['head'], 'tx': moments}, loss

  def train_step(state, batch):
    old = state._replace(opt_state=state.opt_state['probe'])
    new, sums = probe.train_step(old, batch)
    params, other = weights(state), state.opt_state['pretrain']
    done = state.step >= first
    if first:
      # Until the encoder is frozen the linear layer waits, then the other way round.
      layer = lambda s: (s.params, s.opt_state, s.ema)
      kept = steps.where(done, layer(new), layer(old))
      new = new._replace(params=kept[0], opt_state=kept[1], ema=kept[2])
      (rng,) = streams(jax.random.fold_in(state.rng, state.step), 'pretrain')
      wait = lambda params, other, *_: (params, other, jnp.zeros(()))
      args = params, other, rng, batch['image']
      params, other, loss = auxiliary.phases(state.step, first, pretrain, wait, *args)
      sums = {**sums, 'pretrain_loss': Mean(loss, jnp.ones(()))}
    marks = state.opt_state['frozen']
    marks, still = auxiliary.still_frozen(done, marks, params, checksum)
    new = new._replace(
      opt_state={'probe': new.opt_state, 'pretrain': other, 'frozen': marks},
      model_state={**new.model_state, 'encoder': {'params': params}},
    )
    return new, {**sums, 'frozen': still}

  def restored(state, params):
    marks = jax.tree.map(checksum, params)
    return state._replace(
      opt_state={**state.opt_state, 'frozen': marks},
      model_state={**state.model_state, 'encoder': {'params': params}},
    )

  encode = representation.encoding(data, pooled, config.encoder)
  restore = functools.partial(restore_encoder, encoder=config.encoder)
  return probe._replace(
    init=init,
    train_step=train_step,
    warm_start=auxiliary.warm_start(config.encoder.workdir, restore, weights, restored),
    functions={**probe.functions, 'encode': encode},
    metrics={**probe.metrics, **auxiliary.FROZEN},
    phases=(('encoder', 0), ('probe', first)) if first else (),
  )
