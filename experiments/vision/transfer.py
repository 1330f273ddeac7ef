"""Transfer learning: what pretraining is worth, by the number of labels.

  python -m launch.train --exp=transfer
  python -m launch.train --exp=transfer --config.dataset=cifar10 --config.net=resnet \
      --config.depth=20 --config.head.dense=256 --config.source.num_steps=3000 \
      --config.num_steps=4000 --config.share=0.01 --data_dir=DATA

The source task is the first half of the classes, the target task the second half, of
which `labels` images or a `share` may be read; or the source is another set
(`source.dataset`), brought to the target's image shape. The trunk is pretrained by the
run's own first steps, or comes from another run, `--config.source.workdir=W` of `cnn`
or `resnet`. The head, a hidden dense layer and the output layer, begins anew.
Strategies for the target:

  scratch   nothing is transferred: the baseline
  features  the trunk is frozen, statistics included; the head learns
  last      so do the `last` layers of the trunk, in the order of the forward pass
  full      everything learns

What is transferred learns at `trunk_lr`; `unfreeze.at` steps into the target task so do
the last `unfreeze.last` layers. Frozen parameters keep every byte. The recipe of Keras:
features with head.pool (a CNN), head.dense=256, unfreeze.last=20, trunk_lr=1e-5.

Measured: CIFAR-10, 250 labels: full 75.96 %, features 75.52, scratch 66.64 (1 seed).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.zipped import Zipped, part
from dlx.data.images.resize import to_shape
from dlx.data.sets import images
from dlx.data.some import some
from dlx.data.sources import of_classes
from dlx.models import headed
from dlx.models.forward_order import forward_order
from dlx.run.warm_start import restore_model
from dlx.state import create
from dlx.tasks import classification
from dlx.tasks.classification import class_probabilities, normalised
from dlx.train import auxiliary, curves, steps, unfreezing

STRATEGIES = ('scratch', 'features', 'last', 'full')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(auxiliary.Config):
  dataset: str | None = None  # Data set of the source task; None: half of the classes.
  classes: int | None = None  # Classes of the source task, the first ones; None: all.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('classes', least=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps, the steps of the source included.
  batch_size: int = 64  # Examples of one global batch.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, cifar10, or a folder's name: the target.
  source: Source = Source()
  labels: int | None = 50  # Images of the target, alike of each class; None: all.
  share: float | None = None  # Share of the target's images, in place of labels.
  subset_seed: int = 0  # Seed by which the images of the target task are chosen.
  strategy: str = 'features'  # scratch, features, last or full.
  last: int = 2  # Layers of the trunk that learn with the strategy last.
  unfreeze: unfreezing.Config = unfreezing.Config()
  net: str = 'cnn'  # cnn or resnet.
  features: tuple[int, ...] = (32, 64)  # Channels of the blocks of a CNN.
  depth: int = 8  # Layers of a ResNet, 6 n + 2.
  width: int = 16  # Channels of the first stage of a ResNet.
  head: headed.Head = headed.Head()
  lr: float = 1e-3  # Largest learning rate of the target task's Adam; cosine to 0.
  # Largest learning rate of transferred layers; None: lr.
  trunk_lr: float | None = None

  def __post_init__(self):
    super().__post_init__()
    self.bounds('labels', 'last', 'source.num_steps', 'width', least=1)
    self.bounds('features', least=1, some=True)
    self.bounds('share', above=0, most=1)
    self.choice('strategy', of=STRATEGIES)
    self.choice('net', of=headed.NETS)
    residual, known = self.net == 'resnet', self.depth > 2 and self.depth % 6 == 2
    self.require('depth', known, '6 n + 2, such as 8 or 20')
    self.require('head.dense', residual or self.head.dense is not None, 'set for cnn')
    self.bounds('lr', 'trunk_lr', above=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('stream', 'ema_decay', why='two sets are read and two nets learn')


# The least run that still has every part.
SMALL = Config.small(
  source=Source(num_steps=2), features=(4, 8), head=headed.Head(dense=16)
)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  wanted = config.source.dataset
  source = images.images(wanted or config.dataset)
  half = 0 if wanted else data.num_classes // 2  # Where the target's classes begin.
  most = half or source.num_classes
  before, after = range(config.source.classes or most), range(half, data.num_classes)
  config.require('source.classes', len(before) <= most, f'at most {most}')
  only = lambda x, kept, of: x if len(kept) == of.num_classes else of_classes(x, kept)
  source_train = only(source.train, before, source)
  target_train, target_test = (only(x, after, data) for x in (data.train, data.test))
  amount = config.labels if config.share is None else float(config.share)
  target_train = some(target_train, amount, config.subset_seed, by_class='label')

  sizes = {'features': config.features, 'depth': config.depth, 'width': config.width}
  net = lambda classes: headed.net(
    config.net, config.head, len(classes), **sizes, **config.dtypes
  )
  nets = {'source': net(before), 'target': net(after)}
  fit = functools.partial(to_shape, shape=data.shape)
  prepare = {'source': normalised(source, fit), 'target': normalised(data)}
  new = config.head.layers
  # All that is transferred, of parameters or of statistics.
  trunk_of = lambda layers: {k: x for k, x in layers.items() if k not in new}
  images_BHWC = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
  layers = forward_order(nets['target'], images_BHWC, train=False)
  trunk = [path for path in layers if path.split('/')[0] not in new]
  transferred = config.strategy != 'scratch'
  first = config.source.first_steps(config.num_steps) if transferred else 0

  last = {'features': 0, 'last': config.last}.get(config.strategy)
  at, later = config.unfreeze.at, config.unfreeze.last
  for name, n in (('last', last), ('unfreeze.last', later)):
    config.require(name, (n or 0) <= len(trunk), f'at most {len(trunk)}, all layers')
  parts = unfreezing.parts(trunk, last, 0 if at is None else later)

  left = config.num_steps - first
  adam = lambda peak, steps: optim.adam(optim.cosine(peak, max(steps, 1)))
  trunk_lr = config.trunk_lr if transferred and config.trunk_lr else config.lr
  of_trunk = lambda begins: adam(trunk_lr, left - begins)
  tx = optim.adam(optim.one_cycle(config.source.lr, max(first, 1)))
  txs = {
    'source': optim.clip(tx, **config.clipping),
    'target': unfreezing.optimizer(
      parts, at or 0, adam(config.lr, left), of_trunk, config.clipping
    ),
  }
  gradients = functools.partial(steps.gradients, micro_batches=config.micro_batches)
  sources = {**({'source': source_train} if first else {}), 'target': target_train}
  stream = lambda source: Shuffled(source, config.batch_size, config.seed)

  def init(key):
    image, params, stats = jnp.zeros((1, *data.shape)), {}, {}
    for i, task in enumerate(sources):
      made = nets[task].init(jax.random.fold_in(key, i), image, train=False)
      params[task], stats[task] = made['params'], made['batch_stats']
    opt_state = {task: txs[task].init(params[task]) for task in sources}
    rng = jax.random.fold_in(key, len(sources))
    return create(params, opt_state, rng, model_state=stats)

  def put(state, task, params, stats):
    return state._replace(
      params={**state.params, task: params},
      model_state={**state.model_state, task: stats},
    )

  def update(state, batch, rng, task, frozen=()):
    """One step of a task; `frozen` layers of the trunk have no gradients."""
    params, stats = state.params[task], state.model_state[task]
    # Statistics of batches are for a trunk that learns as a whole.
    loss_fn = classification.loss_of(nets[task].clone(frozen_norms=bool(frozen)))
    rows = prepare[task](part(batch, task))
    grads, stats, sums = gradients(loss_fn, params, stats, rows, rng)
    grads = unfreezing.without(frozen, grads)
    old = params, state.opt_state[task]
    new = steps.update(txs[task], grads, *reversed(old))
    seen = curves.between(config, txs[task], state.step, old, new, grads)
    state = put(state, task, new[0], stats)
    opt_state = {**state.opt_state, task: new[1]}
    return state._replace(opt_state=opt_state), {**sums, **seen}

  def hand_over(state):
    """The trunk of the source is the target's from the first step of the target on."""

    def take(both):
      new, old = trunk_of(both['source']), trunk_of(both['target'])
      return {**both['target'], **steps.where(state.step == first, new, old)}

    return put(state, 'target', take(state.params), take(state.model_state))

  begins = first + (at or 0) if parts.waiting else 0  # The second part of the target.

  def target_step(state, *rest):
    state = hand_over(state) if first else state
    few = functools.partial(update, task='target', frozen=parts.waiting + parts.never)
    more = functools.partial(update, task='target', frozen=parts.never)
    return auxiliary.phases(state.step, begins, few, more, state, *rest)

  def train_step(state, batch):
    args = state, batch, jax.random.fold_in(state.rng, state.step)
    pretrain = functools.partial(update, task='source')
    state, sums = auxiliary.phases(state.step, first, pretrain, target_step, *args)
    return state._replace(step=state.step + 1), sums

  def variables(state):
    return {
      'params': state.params['target'],
      'batch_stats': state.model_state['target'],
    }

  def logits(state, batch):
    image = prepare['target'](batch)['image']
    return jnp.asarray(nets['target'].apply(variables(state), image, train=False))

  def test(state, batch):
    return classification.sums(logits(state, batch), batch['label'], batch['weight'])

  def with_trunk(state, found):
    own = variables(state)
    params, stats = ({**own[k], **found[k]} for k in ('params', 'batch_stats'))
    return put(state, 'target', params, stats)

  phases = (('source', 0), ('target', first)) if first else ()
  if parts.waiting:
    what = 'all layers' if not parts.never else f'last {later} layers'
    phases = (*(phases or (('target', 0),)), (what, begins))
  names = [data.class_names[k] for k in after]
  image = {'image': experiment.Field('image', data.shape, 'uint8', data.max_value)}
  test_data = InOrder(target_test, config.eval_batch_size)
  return experiment.Experiment(
    init,
    train_step,
    Zipped({task: stream(source) for task, source in sources.items()}),
    {'test': classification.evaluation(test, test_data)},
    auxiliary.warm_start(
      config.source.workdir if transferred else None,
      restore_model,
      lambda state: {k: trunk_of(v) for k, v in variables(state).items()},
      with_trunk,
    ),
    functions={'predict': class_probabilities(logits, image, names)},
    metrics={**classification.CLASSIFIER, **classification.guessed(len(after))},
    headline=('test/accuracy', 'test/loss'),
    phases=phases,
    figures={'confusion': classification.confusion(names)},
  )
