"""Transfer learning: what pretraining is worth, by the number of labels.

  python -m launch.train --exp=transfer
  python -m launch.train --exp=transfer --config.dataset=cifar10 \
      --config.features=32,64,128 --config.pretrain_steps=3000 \
      --config.num_steps=4000 --config.labels=250 --data_dir=DATA

The source task is the first half of the classes, the target task the second half, of
which `labels` images may be read; or the source is all of another set of the same image
shape (`source`). The trunk is pretrained by the run's own first steps, or comes from
another run, `--config.pretrained=W` of `cnn`, of which all but the last layer is
restored. Strategies for the target:

  scratch   nothing is transferred: the baseline
  features  the trunk is frozen, statistics included; the last layer learns
  last      the two dense layers learn
  full      everything learns, the trunk at `trunk_lr` times the rate

`unfreeze_at` steps into the target task, everything learns. Frozen parameters keep
every byte. Measured figures stand in experiments/README.md.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, figures, losses, metrics, optim
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.zipped import Zipped, part
from dlx.data.sets import images
from dlx.data.sources import of_classes, subset
from dlx.errors import ConfigError
from dlx.models.cnn import CNN
from dlx.run import warm_start
from dlx.state import create
from dlx.tasks.classification import normalised
from dlx.train import steps

# Which layers learn before `unfreeze_at`.
LEARNS = {
  'scratch': '.*',
  'features': 'head/.*',
  'last': '(hidden|head)/.*',
  'full': '.*',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps, those of pretraining included.
  batch_size: int = 64  # Examples of one global batch.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, cifar10, or a folder's name: the target.
  source: str | None = None  # Data set of the source task; None: half of the classes.
  pretrained: str | None = None  # Workdir to restore from; None: own first steps.
  pretrain_steps: int = 300  # Steps of the source task; none where restored.
  labels: int = 50  # Images of the target task, as many of each class.
  subset_seed: int = 0  # Chooses them.
  strategy: str = 'features'  # scratch, features, last or full.
  unfreeze_at: int | None = None  # Target steps after which everything learns.
  features: tuple[int, ...] = (32, 64)  # Channels of the blocks.
  dense: int = 128  # Width of the hidden dense layer.
  dropout: float = 0.3  # Probability that a unit of it is dropped.
  pretrain_lr: float = 3e-3  # Largest learning rate of the source task's Adam.
  lr: float = 1e-3  # Largest learning rate of the target task's Adam; cosine to 0.
  trunk_lr: float = 0.1  # Factor of it for what was transferred.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('pretrain_steps', 'labels', 'unfreeze_at', 'features', least=1)
    self.choice('strategy', of=LEARNS)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', 'pretrain_lr', 'trunk_lr', above=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('stream', why='two sets are read at once')
    self.unused('ema_decay', why='not used here')


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  if config.source is None:
    half = data.num_classes // 2
    before, after = range(half), range(half, data.num_classes)
    source, source_train = data, of_classes(data.train, before)
    target_train = of_classes(data.train, after)
    target_test = of_classes(data.test, after)
  else:
    source = images.images(config.source)
    before, after = range(source.num_classes), range(data.num_classes)
    source_train, target_train, target_test = source.train, data.train, data.test
    if source.shape != data.shape:
      raise ConfigError(
        f'--config.source={config.source} is not allowed: its images are '
        f'{source.shape}, those of {config.dataset} {data.shape}.'
      )
  names = [data.class_names[k] for k in after]

  def net(classes):
    return CNN(
      channels=config.features,
      dense=config.dense,
      num_outputs=len(classes),
      dropout=config.dropout,
      **config.dtypes,
    )

  nets = {'source': net(before), 'target': net(after)}
  prepare = {'source': normalised(source), 'target': normalised(data)}
  transferred = config.strategy != 'scratch'
  own = transferred and config.pretrained is None
  first = min(config.pretrain_steps, config.num_steps) if own else 0
  clip = lambda tx: optim.clip(tx, **config.clipping)
  rate = optim.cosine(config.lr, max(config.num_steps - first, 1))
  txs = {
    'source': clip(optim.adam(optim.one_cycle(config.pretrain_lr, max(first, 1)))),
    'target': clip(optim.adam(rate)),
  }
  tasks = ('source', 'target') if own else ('target',)

  some = subset(target_train, config.labels, config.subset_seed, by_class='label')
  parts = {'target': Shuffled(some, config.batch_size, config.seed)}
  if own:
    parts['source'] = Shuffled(source_train, config.batch_size, config.seed)
  test_data = InOrder(target_test, config.eval_batch_size)

  def init(key):
    image = jnp.zeros((1, *data.shape))
    variables = {
      task: nets[task].init(jax.random.fold_in(key, i), image, train=False)
      for i, task in enumerate(tasks)
    }
    pick = lambda name: {task: v[name] for task, v in variables.items()}
    params = pick('params')
    opt_state = {task: txs[task].init(params[task]) for task in tasks}
    rng = jax.random.fold_in(key, len(tasks))
    return create(params, opt_state, rng, model_state=pick('batch_stats'))

  def update(state, batch, rng, task, *, train, learns, factor):
    """One step of a task. What does not learn keeps every byte, moments of 0 too."""

    def loss_fn(params, batch_stats, rows, rng):
      logits, new = nets[task].apply(
        {'params': params, 'batch_stats': batch_stats},
        rows['image'],
        train=train,
        rngs={'dropout': rng},
        mutable=['batch_stats'],
      )
      loss = metrics.mean(losses.softmax_cross_entropy(logits, rows['label']))
      sums = {'accuracy': metrics.accuracy(logits, rows['label'])}
      return loss, (new.get('batch_stats', batch_stats), sums)

    params, stats = state.params[task], state.model_state[task]
    grads, stats, sums = steps.gradients(
      loss_fn,
      params,
      stats,
      prepare[task](part(batch, task)),
      rng,
      micro_batches=config.micro_batches,
    )
    frozen = jax.tree.map(lambda learn: not learn, optim.by_path(learns)(params))
    zeros = jax.tree.map(jnp.zeros_like, grads)
    moved, opt_state = steps.update(
      txs[task], steps.hold(frozen, grads, zeros), state.opt_state[task], params
    )
    # The trunk goes a part of the way, the last layer all of it.
    part_way = {
      name: jax.tree.map(lambda a, b: b + factor * (a - b), moved[name], params[name])
      if name != 'head' and factor != 1
      else moved[name]
      for name in params
    }
    params = steps.hold(frozen, part_way, params)
    return state._replace(
      params={**state.params, task: params},
      opt_state={**state.opt_state, task: opt_state},
      model_state={**state.model_state, task: stats},
    ), sums

  def pretrain(state, batch, rng):
    return update(state, batch, rng, 'source', train=True, learns='.*', factor=1)

  def adapt(state, batch, rng, everything=config.strategy in ('scratch', 'full')):
    learns = '.*' if everything else LEARNS[config.strategy]
    factor = config.trunk_lr if transferred else 1
    return update(
      state, batch, rng, 'target', train=everything, learns=learns, factor=factor
    )

  def target_step(state, batch, rng):
    if own:  # At the first step of the target task the trunk is handed over.
      now = state.step == first
      hand_over = lambda both: {
        **both,
        'target': {
          name: value
          if name == 'head'
          else steps.where(now, both['source'][name], value)
          for name, value in both['target'].items()
        },
      }
      state = state._replace(
        params=hand_over(state.params), model_state=hand_over(state.model_state)
      )
    if config.unfreeze_at is None:
      return adapt(state, batch, rng)
    frozen = state.step < first + config.unfreeze_at
    unfrozen = lambda *args: adapt(*args, everything=True)
    return jax.lax.cond(frozen, adapt, unfrozen, state, batch, rng)

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    if own:
      state, sums = jax.lax.cond(
        state.step < first, pretrain, target_step, state, batch, rng
      )
    else:
      state, sums = target_step(state, batch, rng)
    return state._replace(step=state.step + 1), sums

  def predict(state, batch):
    variables = {
      'params': state.params['target'],
      'batch_stats': state.model_state['target'],
    }
    image = prepare['target'](batch)['image']
    return jnp.asarray(nets['target'].apply(variables, image, train=False))

  def test(state, batch):
    logits, label, weight = predict(state, batch), batch['label'], batch['weight']
    loss = losses.softmax_cross_entropy(logits, label)
    return {
      'loss': metrics.mean(loss, weight),
      **metrics.classification_sums(logits, label, weight),
    }

  def load(state):
    wanted = {
      'params': {k: v for k, v in state.params['target'].items() if k != 'head'},
      'batch_stats': state.model_state['target'],
    }
    found, origin = warm_start.restore_model(config.pretrained, wanted)
    params = {**state.params['target'], **found['params']}
    return state._replace(
      params={**state.params, 'target': params},
      model_state={**state.model_state, 'target': found['batch_stats']},
    ), origin

  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=Zipped(parts),
    evals={
      'test': experiment.Eval(test, test_data, summarize=metrics.classification_summary)
    },
    warm_start=load if transferred and config.pretrained else None,
    figures={
      'confusion': experiment.Figure(
        lambda found: figures.confusion_matrix(found['confusion'], names), eval='test'
      )
    },
  )
