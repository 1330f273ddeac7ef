"""Distillation of a CNN into a small MLP (Hinton et al., arXiv 1503.02531).

  python -m launch.train --exp=distill
  python -m launch.train --exp=cnn --config.dataset=mnist --data_dir=DATA --workdir=T
  python -m launch.train --exp=distill --config.dataset=mnist --config.teacher=T \
      --config.labels=1000 --config.num_steps=1500 --data_dir=DATA

The teacher is a run of `cnn`; without one the first `teacher_steps` train it here, on
all training images, and it is frozen afterwards. The student sees `labels` images and
`transfer` more whose labels it never reads, with the teacher's softened answers for
all. `alpha` = 0 is the control: hard labels alone. Compare with as many hard labels
before crediting the soft ones: most of the gain of a transfer set is its images.
Measured figures stand in experiments/README.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, figures, losses, metrics, optim
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.zipped import Zipped, part
from dlx.data.sets import images
from dlx.data.sources import subset
from dlx.models.cnn import CNN
from dlx.models.mlp import MLP
from dlx.run import warm_start
from dlx.state import create
from dlx.tasks.classification import normalised
from dlx.train import steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1000  # Optimiser steps, those of the teacher included.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 250  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, or a folder's name.
  teacher: str | None = None  # Workdir of a cnn; None: the first steps train one.
  teacher_steps: int = 250  # Steps that do; none where a teacher is given.
  teacher_features: tuple[int, ...] = (32, 64)  # Channels of the teacher's blocks.
  teacher_dense: int = 128  # Width of its hidden layer.
  teacher_lr: float = 3e-3  # Its largest learning rate.
  labels: int = 200  # Images whose labels the student may read.
  transfer: int = 0  # Further images, without labels.
  subset_seed: int = 0  # Chooses them.
  features: tuple[int, ...] = (64,)  # Widths of the student's hidden layers.
  temperature: float = 4.0  # Of both softmaxes.
  alpha: float = 1.0  # Weight of the soft targets; 1 - alpha of the labels.
  lr: float = 2e-3  # Largest learning rate of the student's Adam; cosine to 0.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('teacher_steps', 'labels', least=1)
    self.bounds('transfer', least=0)
    self.bounds('temperature', 'lr', 'teacher_lr', above=0)
    self.bounds('alpha', least=0, most=1)
    self.require(
      'transfer',
      self.alpha > 0 or self.transfer == 0,
      '0 where alpha is 0: without labels and soft targets there is nothing to learn',
    )
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('stream', why='two sets are read at once')
    self.unused('ema_decay', why='not used here')


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  student = MLP(widths=config.features, num_outputs=data.num_classes, **config.dtypes)
  teacher = CNN(
    channels=config.teacher_features,
    dense=config.teacher_dense,
    num_outputs=data.num_classes,
    **config.dtypes,
  )
  first = 0 if config.teacher else min(config.teacher_steps, config.num_steps)
  learning = max(config.num_steps - first, 1)
  clip = lambda tx: optim.clip(tx, **config.clipping)
  tx_student = clip(optim.adam(optim.cosine(config.lr, learning)))
  tx_teacher = clip(optim.adam(optim.one_cycle(config.teacher_lr, max(first, 1))))
  prepare = normalised(data)

  size = config.labels + config.transfer
  some = subset(data.train, size, config.subset_seed, marked=config.labels)
  parts: dict[str, Any] = {'student': Shuffled(some, config.batch_size, config.seed)}
  if first:
    parts['teacher'] = Shuffled(data.train, config.batch_size, config.seed)
  test_data = InOrder(data.test, config.eval_batch_size)

  def init(key):
    image = jnp.zeros((1, *data.shape))
    params = student.init(jax.random.fold_in(key, 0), image, train=False)['params']
    taught = dict(teacher.init(jax.random.fold_in(key, 2), image, train=False))
    opt_state = {'student': tx_student.init(params)}
    if first:
      opt_state['teacher'] = tx_teacher.init(taught['params'])
    model_state = {'teacher': taught}
    return create(
      params, opt_state, jax.random.fold_in(key, 1), model_state=model_state
    )

  def soft(taught, image):
    return jnp.asarray(teacher.apply(taught, image, train=False))

  def student_loss(params, taught, batch, rng):
    logits: Any = student.apply(
      {'params': params}, batch['image'], train=True, rngs={'dropout': rng}
    )
    label = batch['label']
    hard = losses.softmax_cross_entropy(logits, label) * batch['marked']
    near = losses.distillation(
      logits, soft(taught, batch['image']), temperature=config.temperature
    )
    loss = config.alpha * near + (1 - config.alpha) * hard
    sums = {'accuracy': metrics.accuracy(logits, label)}
    return metrics.mean(loss), (taught, sums)

  def teacher_loss(params, batch_stats, batch, rng):
    applied: Any = teacher.apply(
      {'params': params, 'batch_stats': batch_stats},
      batch['image'],
      train=True,
      rngs={'dropout': rng},
      mutable=['batch_stats'],
    )
    logits, new = applied
    loss = metrics.mean(losses.softmax_cross_entropy(logits, batch['label']))
    sums = {'accuracy': metrics.accuracy(logits, batch['label'])}
    return loss, (new['batch_stats'], sums)

  def learn(state, batch, rng):
    """A step of the student; the teacher keeps every byte."""
    rows = prepare(part(batch, 'student'))
    grads, _, sums = steps.gradients(
      student_loss,
      state.params,
      state.model_state['teacher'],
      rows,
      rng,
      micro_batches=config.micro_batches,
    )
    own = state.opt_state['student']
    params, own = steps.update(tx_student, grads, own, state.params)
    opt_state = {**state.opt_state, 'student': own}
    return state._replace(params=params, opt_state=opt_state), sums

  def teach(state, batch, rng):
    """A step of the teacher; the student keeps every byte."""
    rows, taught = prepare(part(batch, 'teacher')), state.model_state['teacher']
    grads, batch_stats, sums = steps.gradients(
      teacher_loss,
      taught['params'],
      taught['batch_stats'],
      rows,
      rng,
      micro_batches=config.micro_batches,
    )
    params, own = steps.update(
      tx_teacher, grads, state.opt_state['teacher'], taught['params']
    )
    taught = {'params': params, 'batch_stats': batch_stats}
    opt_state = {**state.opt_state, 'teacher': own}
    return state._replace(opt_state=opt_state, model_state={'teacher': taught}), sums

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    if first:
      state, sums = jax.lax.cond(state.step < first, teach, learn, state, batch, rng)
    else:
      state, sums = learn(state, batch, rng)
    return state._replace(step=state.step + 1), sums

  def both(state, batch):
    image = prepare(batch)['image']
    logits = jnp.asarray(student.apply({'params': state.params}, image, train=False))
    return logits, soft(state.model_state['teacher'], image)

  def test(state, batch):
    logits, taught = both(state, batch)
    label, weight = batch['label'], batch['weight']
    return {
      'loss': metrics.mean(losses.softmax_cross_entropy(logits, label), weight),
      **metrics.classification_sums(logits, label, weight),
      'teacher_accuracy': metrics.accuracy(taught, label, weight),
      'agreement': metrics.accuracy(logits, taught.argmax(1), weight),
    }

  def load(state):
    taught, origin = warm_start.restore_model(
      config.teacher, state.model_state['teacher']
    )
    return state._replace(model_state={'teacher': taught}), origin

  def softened(state, key, batch):
    del key
    probs = jax.nn.softmax(both(state, batch)[1] / config.temperature)
    return {'image': batch['image'], 'label': batch['label'], 'probs': probs}

  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=Zipped(parts),
    evals={
      'test': experiment.Eval(test, test_data, summarize=metrics.classification_summary)
    },
    warm_start=load if config.teacher else None,
    figures={
      'confusion': experiment.Figure(
        lambda found: figures.confusion_matrix(found['confusion'], data.class_names),
        eval='test',
      ),
      'softened_teacher': experiment.Figure(
        lambda tree: figures.predictions(
          data.to_unit(tree['image']), tree['label'], tree['probs'], data.class_names
        ),
        compute=softened,
        data=test_data,
      ),
    },
  )
