"""Linear probe: a linear classifier on the features of an encoder that stays as it is.

  python -m launch.train --exp=linear_probe
  python -m launch.train --exp=linear_probe --config.encoder=RUN
  python -m launch.train --exp=linear_probe --config.encoder=RUN \
      --config.dataset=mnist --config.strides=2,2,2,1 --config.num_steps=1500 \
      --config.batch_size=256 --data_dir=DATA

RUN is the workdir of a run that has an encoder under `params/encoder`, such as moco's,
with the same `features`, `strides` and `groups`. Without one the first steps of this
run train the encoder, without labels, by contrasting two views within the batch
(SimCLR, arXiv:2002.05709); `pretrain_steps=0` probes random weights.

Once frozen, the encoder lies in model_state, where no optimiser reaches it, and
`train/frozen` is 1 while it still has the checksum of the step at which it was frozen.
All labels are used, as the protocol of self-supervised learning wants; moco's own
`probe` fits small numbers of labels instead. All measured figures stand in
experiments/README.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, losses, optim
from dlx.data.images.levels import normalise
from dlx.data.images.views import two_views, view_of
from dlx.data.sets import images
from dlx.losses import contrastive
from dlx.models.conv_encoder import (
  ConvEncoder,
  LinearProbe,
  ProjectedEncoder,
  ProjectionHead,
  check_encoder,
)
from dlx.precision import unit
from dlx.run.checkpoint.checksums import checksum
from dlx.run.warm_start import restore_encoder
from dlx.state import Mean, Metric, streams
from dlx.tasks.classification import image_classifier
from dlx.tasks.representation import TrainTest, pictures
from dlx.train import steps

METRICS = {
  'pretrain_loss': Metric(
    'Contrastive loss',
    'lower',
    'Loss of the encoder, from two views of the images of a batch; 0 once the encoder '
    'is frozen.',
    'nats',
    'loss',
  ),
  'frozen': Metric(
    'Frozen encoder',
    None,
    'Share of the steps after which the encoder had the checksum of the step at which '
    'the encoder was frozen.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Steps of the whole run, those that train the encoder included.
  batch_size: int = 128  # Images of one global batch.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  encoder: str | None = None  # Workdir of the run whose encoder is probed; None: own.
  pretrain_steps: int = 300  # Own encoder: steps that train it; at most half of all.
  pretrain_lr: float = 2e-3  # Peak of the learning rate of those.
  temperature: float = 0.1  # Of the loss of those.
  features: tuple[int, ...] = (32, 64, 128, 128)  # Channels of the encoder's layers.
  strides: tuple[int, ...] = (1, 2, 2, 1)  # Of each layer; 2,2,2,1 for 28 pixels.
  groups: int = 8  # Of the encoder's group norm; divides every number of features.
  lr: float = 3e-2  # Peak of the cosine learning rate of the linear layer.
  weight_decay: float = 0.0  # Decoupled, of the linear layer.

  def __post_init__(self):
    super().__post_init__()
    check_encoder(self)
    self.bounds('pretrain_steps', 'weight_decay', least=0)
    self.bounds('pretrain_lr', 'temperature', 'lr', above=0)
    if self.encoder is None and self.pretrain_steps:
      other = 'unless encoder is given or pretrain_steps=0'
      self.unused('micro_batches', why=other)
      self.require(
        'compute_dtype', self.compute_dtype != 'float16', f'another, {other}'
      )


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  view = view_of(data.shape)
  encoder = ConvEncoder(config.features, config.strides, config.groups, **config.dtypes)
  projected = ProjectedEncoder(encoder, ProjectionHead(**config.dtypes))
  own = 0 if config.encoder else min(config.pretrain_steps, config.num_steps // 2)
  pre_tx = optim.clip(
    optim.adam(optim.warmup_cosine(config.pretrain_lr, max(own, 1), own // 4)),
    **config.clipping,
  )

  def weights(state):
    return state.model_state['encoder']['params']

  def apply(module, params, image) -> Any:
    image = normalise(image, data.mean, data.std)
    return module.apply({'params': params}, image)

  def pooled(state, image):
    return apply(encoder, weights(state), image).pooled_BF

  # The classifier proper.
  probe = image_classifier(
    config,
    data,
    model=LinearProbe(encoder, data.num_classes, **config.dtypes),
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.adamw(
      optim.cosine(config.lr, config.num_steps - own), weight_decay=config.weight_decay
    ),
    figures=pictures(
      data,
      TrainTest(data.train, data.test, num_train=5000, num_test=2000),
      pooled=pooled,
    ),
  )

  def marks(params):
    return jax.tree.map(checksum, params)

  def init(key):
    state, pretrain = probe.init(key), ()
    if own:
      image = jnp.zeros((1, *data.shape), jnp.float32)
      head = projected.init(jax.random.fold_in(key, 2), image)['params']['head']
      moments = pre_tx.init({'encoder': weights(state), 'head': head})
      pretrain = {'head': head, 'tx': moments}
    return state._replace(
      opt_state={
        'probe': state.opt_state,
        'pretrain': pretrain,
        'frozen': marks(weights(state)),
      }
    )

  def pretrain(params, pretrain, rng, image):
    def loss_fn(both):
      views = two_views(view, rng, data.to_unit(image))
      one, two = (unit(apply(projected, both, x)) for x in views)
      found = contrastive.in_batch_info_nce(one, two, config.temperature)
      return found.loss_B.mean()

    both = {'encoder': params, 'head': pretrain['head']}
    loss, grads = jax.value_and_grad(loss_fn)(both)
    both, moments = steps.update(pre_tx, grads, pretrain['tx'], both)
    return both['encoder'], {'head': both['head'], 'tx': moments}, loss

  def train_step(state, batch):
    old = state._replace(opt_state=state.opt_state['probe'])
    new, found = probe.train_step(old, batch)
    sums = dict(found)
    params, other = weights(state), state.opt_state['pretrain']
    done = state.step >= own
    if own:
      # Until the encoder is frozen the linear layer waits, then the other way round.
      layer = lambda s: (s.params, s.opt_state, s.ema)
      kept = steps.where(done, layer(new), layer(old))
      new = new._replace(params=kept[0], opt_state=kept[1], ema=kept[2])
      (rng,) = streams(jax.random.fold_in(state.rng, state.step), 'pretrain')
      params, other, loss = jax.lax.cond(
        done,
        lambda params, other, *_: (params, other, jnp.zeros(())),
        pretrain,
        *(params, other, rng, batch['image']),
      )
      sums['pretrain_loss'] = Mean(loss, jnp.ones(()))
    now = marks(params)
    frozen = steps.where(done, state.opt_state['frozen'], now)
    same = jax.tree.leaves(jax.tree.map(lambda a, b: (a == b).all(), now, frozen))
    still = jnp.stack([done, *same]).all().astype(jnp.float32)
    new = new._replace(
      opt_state={'probe': new.opt_state, 'pretrain': other, 'frozen': frozen},
      model_state={**new.model_state, 'encoder': {'params': params}},
    )
    return new, {**sums, 'frozen': Mean(still, jnp.ones(()))}

  def load(state):
    params, origin = restore_encoder(config, weights(state))
    state = state._replace(
      model_state={**state.model_state, 'encoder': {'params': params}},
      opt_state={**state.opt_state, 'frozen': marks(params)},
    )
    return state, origin

  encode = experiment.Function(
    lambda state, inputs: {'features': pooled(state, data.to_unit(inputs['image']))},
    probe.functions['predict'].inputs,
    {'features': experiment.Field('features', (config.features[-1],), 'float32')},
  )
  return probe._replace(
    init=init,
    train_step=train_step,
    warm_start=load if config.encoder else None,
    functions={**probe.functions, 'encode': encode},
    metrics={**probe.metrics, **METRICS},
    phases=(('encoder', 0), ('probe', own)) if own else (),
  )
