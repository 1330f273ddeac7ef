"""A frozen classifier that judges generated images, as an evaluation of a generator.

A generator's own loss says little about its samples. A CNN that was trained on the real
images of a labelled set says how sure it is of each sample, which classes occur, and
how far the features of samples lie from those of real images: a Frechet distance
(arXiv 1706.08500) in the features of this CNN, comparable within one judge only.

  judge = Judge(data, config.judge)
  model_state = {'judge': judge.init(key), ...}
  judge.train(state.model_state['judge'], step, rng, batch)   in the train step
  judge.sums(...), judge.summarize(...)                       of an Eval
  judge.warm_start(restore_model)                             of the Experiment

The judge comes from another run (`--exp=cnn` with the default model, or the features
and width that are given), or it is trained by the first steps of the run itself, on the
batches of the generator: see dlx/train/auxiliary.py. After that it does not change.
"""

import dataclasses
from typing import Any, Mapping

import jax
import jax.numpy as jnp

from dlx import labels, losses, metrics, optim
from dlx.data.images.levels import normalise
from dlx.data.sets.images import ImageData
from dlx.metrics.generation import feature_moments, frechet_of
from dlx.models.cnn import CNN
from dlx.precision import EXACT
from dlx.state import Array, Key, Mean, Metric, Metrics, PyTree
from dlx.tasks.classification import AuxiliaryCnn
from dlx.train import auxiliary, steps

CONFIDENT = 0.9
# What `Judge.summarize` reports.
JUDGE: Mapping[str, Metric] = {
  'confident': Metric(
    'Sure samples',
    'higher',
    'Share of the samples whose likeliest class has a probability above 0.9 for the '
    'judge.',
    '%',
    'share',
  ),
  'confident_real': Metric(
    'Sure real images',
    None,
    'Share of as many real images whose likeliest class has a probability above 0.9 '
    'for the judge.',
    '%',
    'share',
  ),
  'judge_accuracy': Metric(
    'Accuracy of the judge',
    None,
    'Share of the real images that the judge classifies rightly.',
    '%',
    'share',
  ),
  'asked_class': Metric(
    'Samples of the asked class',
    'higher',
    'Share of the samples whose likeliest class, for the judge, is the class that was '
    'asked for.',
    '%',
    'share',
  ),
  'class_entropy': Metric(
    'Entropy of the classes',
    'higher',
    'Entropy of the classes of all samples, the logarithm of the number of classes '
    'where all occur equally.',
    'nats',
    'entropy',
  ),
  'frechet': Metric(
    'Frechet distance',
    'lower',
    'Distance of two Gaussians, of the features of samples and of real images, '
    'comparable within one judge only; nan of no more samples than features.',
    '',
    'distance',
  ),
}


@dataclasses.dataclass(frozen=True)
class Judge:
  """The classifier, its training and its verdicts. Holds no arrays.

  Its state is a dict of 'params', 'batch_stats' and 'opt_state', under
  `model_state['judge']` of the run.

  Attributes:
    data: the labelled set; images are given in [0, 1].
    config: where the net comes from, and its size; the activations of the hidden layer
      are the features.
    dtype: of weights and arithmetic, where that is wider than float32.
  """

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Config(AuxiliaryCnn):
    """Flags of the judge, `--config.judge.NAME`."""

    num_samples: int = 1000  # Samples that are judged; at most the test images.
    every_steps: int | None = None  # Steps between judgements; None: as evaluations.

    def __post_init__(self):
      super().__post_init__()
      self.bounds('num_samples', 'every_steps', least=1)

  data: ImageData
  config: Config = Config()
  dtype: str = 'float32'

  @property
  def model(self) -> CNN:
    wide = jnp.promote_types(jnp.float32, self.dtype)
    return self.config.model(self.data.num_classes, dtype=wide, param_dtype=wide)

  def init(self, key: Key) -> PyTree:
    image = jnp.zeros((1, *self.data.shape))
    variables = dict(self.model.init(key, image, train=False))
    return {**variables, 'opt_state': self._tx().init(variables['params'])}

  def warm_start(self, restore: auxiliary.Restore) -> auxiliary.WarmStart | None:
    """For `Experiment.warm_start`: the weights from the workdir; None without one.

    Args:
      restore: `run.warm_start.restore_model`, which reads another run.
    """

    def write(state, found):
      judge = {**state.model_state['judge'], **found}
      return state._replace(model_state={**state.model_state, 'judge': judge})

    return auxiliary.warm_start(
      self.config.workdir,
      restore,
      lambda state: _variables(state.model_state['judge']),
      write,
    )

  def train(
    self, judge: PyTree, step: Array, rng: Key, image_BHWC: Array, label_B: Array
  ) -> PyTree:
    """One step of its own training while `step < config.num_steps`; no change then.

    Args:
      step: of the run.
      image_BHWC: real images in [0, 1].
    """

    def loss_fn(params, batch_stats):
      logits, new = self.model.apply(
        {'params': params, 'batch_stats': batch_stats},
        self._normalise(image_BHWC),
        train=True,
        rngs={'dropout': rng},
        mutable=['batch_stats'],
      )
      return losses.softmax_cross_entropy(logits, label_B).mean(), new['batch_stats']

    def learn(judge):
      grads, batch_stats = jax.grad(loss_fn, has_aux=True)(
        judge['params'], judge['batch_stats']
      )
      params, opt_state = steps.update(
        self._tx(), grads, judge['opt_state'], judge['params']
      )
      new = {'params': params, 'batch_stats': batch_stats, 'opt_state': opt_state}
      return steps.like(new, judge)

    first = self.config.first_steps(self.config.num_steps)
    return auxiliary.phases(step, first, learn, lambda judge: judge, judge)

  def verdict(self, judge: PyTree, image_BHWC: Array) -> tuple[Array, Array]:
    """Probabilities [B, K] and features [B, F] of images in [0, 1]."""
    found: Any = self.model.apply(
      _variables(judge), self._normalise(image_BHWC), train=False, method='forward'
    )
    logits_BK, feature_BF = found
    return jax.nn.softmax(logits_BK), feature_BF

  def sums(
    self,
    judge: PyTree,
    fake_BHWC: Array,
    real_BHWC: Array,
    label_B: Array,
    weight_B: Array,
    asked_B: Array | None = None,
  ) -> Metrics:
    """Sums over a batch of samples and as many real images, both in [0, 1].

    Args:
      label_B: classes of the real images.
      asked_B: classes that the samples were asked for; None: unconditional.
    """
    fake_BK, fake_BF = self.verdict(judge, fake_BHWC)
    real_BK, real_BF = self.verdict(judge, real_BHWC)
    share = lambda yes_B: Mean((yes_B * weight_B).sum(), weight_B.sum())
    classes_B = fake_BK.argmax(1)
    hot_BK = labels.one_hot(classes_B, self.data.num_classes)
    out = {
      'confident': share(fake_BK.max(1) > CONFIDENT),
      'confident_real': share(real_BK.max(1) > CONFIDENT),
      'judge_accuracy': metrics.accuracy(real_BK, label_B, weight_B),
      'classes': jnp.dot(hot_BK.T, weight_B, precision=EXACT),
      'fake': feature_moments(fake_BF, weight_B),
      'real': feature_moments(real_BF, weight_B),
    }
    if asked_B is not None:
      out['asked_class'] = share(classes_B == asked_B)
    return out

  def summarize(self, found: Metrics) -> dict[str, Array]:
    """What is reported of the summed sums.

    `confident`: share of samples of which the judge is sure above 0.9, beside
    `confident_real`, that of as many real images. `class_entropy`: of the classes of
    all samples, nats; log(K) where all occur equally. `frechet`: distance of features,
    nan of no more samples than features.
    `asked_class`: share that is of the class it was asked for. `judge_accuracy`: on
    the real images. `classes`: samples a class [K].
    """
    share_K = found['classes'] / found['classes'].sum()
    ratio = lambda x: x.total / x.count
    own = ('fake', 'real', 'classes')
    return {
      **{name: ratio(x) for name, x in found.items() if name not in own},
      'class_entropy': jax.scipy.special.entr(share_K).sum(),
      'frechet': frechet_of(found['fake'], found['real']),
      'classes': found['classes'],
    }

  def _normalise(self, image_BHWC: Array) -> Array:
    return normalise(image_BHWC, self.data.mean, self.data.std)

  def _tx(self):
    return optim.adam(optim.one_cycle(self.config.lr, max(self.config.num_steps, 1)))


def _variables(judge: PyTree) -> dict[str, PyTree]:
  """What the model is applied to: all but the optimiser's state."""
  return {name: judge[name] for name in ('params', 'batch_stats')}
