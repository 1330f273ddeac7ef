"""Transfer learning: what pretraining is worth, by the number of labels.

  python -m launch.train --exp=transfer
  python -m launch.train --exp=transfer --config.dataset=cifar10 \
      --config.features=32,64,128 --config.source.num_steps=3000 \
      --config.num_steps=4000 --config.labels=250 --data_dir=DATA

The source task is the first half of the classes, the target task the second half, of
which `labels` images may be read; or the source is all of another set of the same image
shape (`source.dataset`). The trunk is pretrained by the run's own first steps, or comes
from another run, `--config.source.workdir=W` of `cnn`, of which all but the last layer
is restored. Strategies for the target:

  scratch   nothing is transferred: the baseline
  features  the trunk is frozen, statistics included; the last layer learns
  last      the two dense layers learn
  full      everything learns, the trunk at `trunk_lr` times the rate

`unfreeze_at` steps into the target task, everything learns. Frozen parameters keep
every byte.

Measured: MNIST, 25 labels, last 81.04 %, scratch 75.95 % (3 seeds).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.zipped import Zipped, part
from dlx.data.sets import images
from dlx.data.sources import of_classes, subset
from dlx.models.cnn import CNN
from dlx.run.warm_start import restore_model
from dlx.state import create
from dlx.tasks import classification
from dlx.tasks.classification import class_probabilities, normalised
from dlx.train import auxiliary, curves, steps

# Which layers learn before `unfreeze_at`.
LEARNS = {
  'scratch': '.*',
  'features': 'head/.*',
  'last': '(hidden|head)/.*',
  'full': '.*',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source(auxiliary.Config):
  dataset: str | None = None  # Data set of the source task; None: half of the classes.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps, the steps of the source included.
  batch_size: int = 64  # Examples of one global batch.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, cifar10, or a folder's name: the target.
  source: Source = Source()
  labels: int = 50  # Images of the target task, as many of each class.
  subset_seed: int = 0  # Seed by which the images of the target task are chosen.
  strategy: str = 'features'  # scratch, features, last or full.
  unfreeze_at: int | None = None  # Target steps after which everything learns.
  features: tuple[int, ...] = (32, 64)  # Channels of the blocks.
  dense: int = 128  # Width of the hidden dense layer.
  dropout: float = 0.3  # Probability that a unit of the hidden dense layer is dropped.
  lr: float = 1e-3  # Largest learning rate of the target task's Adam; cosine to 0.
  trunk_lr: float = 0.1  # Share of a step that transferred layers take.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('labels', 'unfreeze_at', 'features', 'source.num_steps', least=1)
    self.choice('strategy', of=LEARNS)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', 'trunk_lr', above=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.require(  # A share of a step is taken of the weights themselves.
      'param_dtype',
      self.trunk_lr == 1 or self.param_dtype != 'bfloat16',
      f'float32 or float64 with trunk_lr={self.trunk_lr}',
    )
    self.unused('stream', 'ema_decay', why='two sets are read and two nets learn')


# The least run that still has every part.
SMALL = Config.small(source=Source(num_steps=2), features=(4, 8), dense=16)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  if config.source.dataset is None:
    half = data.num_classes // 2
    before, after = range(half), range(half, data.num_classes)
    source, source_train = data, of_classes(data.train, before)
    target_train, target_test = (of_classes(x, after) for x in (data.train, data.test))
  else:
    source = images.images(config.source.dataset)
    before, after = range(source.num_classes), range(data.num_classes)
    source_train, target_train, target_test = source.train, data.train, data.test
    same = source.shape == data.shape
    config.require('source.dataset', same, f'of images {data.shape}, as {data.name}')
  net = lambda classes: CNN(
    config.features, config.dense, len(classes), config.dropout, **config.dtypes
  )
  nets = {'source': net(before), 'target': net(after)}
  prepare = {'source': normalised(source), 'target': normalised(data)}
  # All but the last layer, of parameters or of statistics.
  trunk_of = lambda layers: {k: x for k, x in layers.items() if k != 'head'}
  transferred = config.strategy != 'scratch'
  first = config.source.first_steps(config.num_steps) if transferred else 0
  rates = {
    'source': optim.one_cycle(config.source.lr, max(first, 1)),
    'target': optim.cosine(config.lr, max(config.num_steps - first, 1)),
  }
  txs = {k: optim.clip(optim.adam(r), **config.clipping) for k, r in rates.items()}
  gradients = functools.partial(steps.gradients, micro_batches=config.micro_batches)
  some = subset(target_train, config.labels, config.subset_seed, by_class='label')
  sources = {**({'source': source_train} if first else {}), 'target': some}
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

  def update(state, batch, rng, task, train, learns, factor):
    """One step of a task. What does not learn keeps every byte, moments of 0 too."""
    params, stats = state.params[task], state.model_state[task]
    loss_fn = classification.loss_of(nets[task], train=train)
    rows = prepare[task](part(batch, task))
    grads, stats, sums = gradients(loss_fn, params, stats, rows, rng)
    frozen = jax.tree.map(lambda learn: not learn, optim.by_path(learns)(params))
    grads = steps.hold(frozen, grads, jax.tree.map(jnp.zeros_like, grads))
    old = params, state.opt_state[task]
    moved, own = steps.update(txs[task], grads, *reversed(old))
    if factor != 1:  # The trunk goes a part of the way, the last layer all of it.
      part_way = jax.tree.map(lambda a, b: b + factor * (a - b), moved, params)
      moved = {**moved, **trunk_of(part_way)}
    new = steps.hold(frozen, moved, params), own
    seen = curves.between(config, txs[task], state.step, old, new, grads)
    state = put(state, task, new[0], stats)
    opt_state = {**state.opt_state, task: own}
    return state._replace(opt_state=opt_state), {**sums, **seen}

  def pretrain(state, batch, rng):
    return update(state, batch, rng, 'source', True, '.*', 1)

  def adapt(state, batch, rng, everything=config.strategy in ('scratch', 'full')):
    learns = '.*' if everything else LEARNS[config.strategy]
    factor = config.trunk_lr if transferred else 1
    return update(state, batch, rng, 'target', everything, learns, factor)

  def hand_over(state):
    """The trunk of the source is the target's from the first step of the target on."""

    def take(both):
      new, old = trunk_of(both['source']), trunk_of(both['target'])
      return {**both['target'], **steps.where(state.step == first, new, old)}

    return put(state, 'target', take(state.params), take(state.model_state))

  def target_step(state, batch, rng):
    state = hand_over(state) if first else state
    if config.unfreeze_at is None:
      return adapt(state, batch, rng)
    frozen = state.step < first + config.unfreeze_at
    unfrozen = lambda *args: adapt(*args, everything=True)
    return jax.lax.cond(frozen, adapt, unfrozen, state, batch, rng)

  def train_step(state, batch):
    args = state, batch, jax.random.fold_in(state.rng, state.step)
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
    params = {**state.params['target'], **found['params']}
    return put(state, 'target', params, found['batch_stats'])

  phases = (('source', 0), ('target', first)) if first else ()
  if config.unfreeze_at is not None:
    phases = phases or (('target', 0),)
    phases += (('all layers', first + config.unfreeze_at),)
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
