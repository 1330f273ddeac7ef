"""A frozen classifier that judges generated images, as an evaluation of a generator.

A generator's own loss says little about its samples. A CNN that was trained on the real
images of a labelled set says how sure it is of each sample, which classes occur, and
how far the features of samples lie from those of real images: a Frechet distance
(arXiv 1706.08500) in the features of this CNN, comparable within one judge only.

  judge = Judge(data, workdir=config.judge, num_steps=config.judge_steps)
  model_state = {'judge': judge.init(key), ...}
  judge.train(state.model_state['judge'], step, rng, batch)   in the train step
  judge.sums(...), judge.summarize(...)                       of an Eval
  judge.warm_start(restore_model)                             of the Experiment

The judge comes from another run (`--exp=cnn` with the default model, or the features
and width that are given), or it is trained by the first steps of the run itself, on the
batches of the generator. After that it does not change.
"""

import dataclasses
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp

from dlx import losses, metrics, optim
from dlx.data.images.levels import normalise
from dlx.data.sets.images import ImageData
from dlx.errors import ConfigError
from dlx.metrics.generation import _gaussian, feature_moments, frechet_distance
from dlx.models.cnn import CNN
from dlx.state import Array, Key, Mean, Metrics, PyTree, TrainState
from dlx.train import steps

CONFIDENT = 0.9

# (workdir, the variables wanted) -> (variables, origin), as run.warm_start has them.
Restore = Callable[[Any, Mapping[str, PyTree]], tuple[PyTree, Mapping[str, Any]]]
WarmStart = Callable[[TrainState], tuple[TrainState, Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Judge:
  """The classifier, its training and its verdicts. Holds no arrays.

  Its state is a dict of 'params', 'batch_stats' and 'opt_state', under
  `model_state['judge']` of the run.

  Attributes:
    data: the labelled set; images are given in [0, 1].
    workdir: of the run it comes from; None: the run's own first steps train it.
    num_steps: of that training; 0 with a workdir.
    features: channels of its blocks.
    dense: width of its hidden layer, whose activations are the features.
    lr: largest learning rate of its own training.
    dtype: of weights and arithmetic, where that is wider than float32.
  """

  data: ImageData
  workdir: str | None = None
  num_steps: int = 300
  features: tuple[int, ...] = (32, 64)
  dense: int = 128
  lr: float = 3e-3
  dtype: str = 'float32'

  @property
  def model(self) -> CNN:
    wide = jnp.promote_types(jnp.float32, self.dtype)
    return CNN(
      channels=self.features,
      dense=self.dense,
      num_outputs=self.data.num_classes,
      dtype=wide,
      param_dtype=wide,
    )

  def init(self, key: Key) -> PyTree:
    image = jnp.zeros((1, *self.data.shape))
    variables = dict(self.model.init(key, image, train=False))
    return {**variables, 'opt_state': self._tx().init(variables['params'])}

  def warm_start(self, restore: Restore) -> WarmStart | None:
    """For `Experiment.warm_start`: the weights from `workdir`; None without one.

    Args:
      restore: `run.warm_start.restore_model`, which reads another run.
    """
    if self.workdir is None:
      return None

    def load(state):
      judge = state.model_state['judge']
      wanted = {name: judge[name] for name in ('params', 'batch_stats')}
      found, origin = restore(self.workdir, wanted)
      model_state = {**state.model_state, 'judge': {**judge, **found}}
      return state._replace(model_state=model_state), origin

    return load

  def train(
    self, judge: PyTree, step: Array, rng: Key, image_BHWC: Array, label_B: Array
  ) -> PyTree:
    """One step of its own training while `step < num_steps`; no change afterwards.

    Args:
      step: of the run.
      image_BHWC: real images in [0, 1].
    """
    if self.workdir is not None or self.num_steps == 0:
      return judge

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

    return jax.lax.cond(step < self.num_steps, learn, lambda judge: judge, judge)

  def verdict(self, judge: PyTree, image_BHWC: Array) -> tuple[Array, Array]:
    """Probabilities [B, K] and features [B, F] of images in [0, 1]."""
    variables = {name: judge[name] for name in ('params', 'batch_stats')}
    found: Any = self.model.apply(
      variables, self._normalise(image_BHWC), train=False, method='forward'
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
    out = {
      'confident': share(fake_BK.max(1) > CONFIDENT),
      'confident_real': share(real_BK.max(1) > CONFIDENT),
      'judge_accuracy': metrics.accuracy(real_BK, label_B, weight_B),
      'classes': jax.nn.one_hot(classes_B, self.data.num_classes).T @ weight_B,
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
    all samples, nats; log(K) where all occur equally. `frechet`: distance of features.
    `asked_class`: share that is of the class it was asked for. `judge_accuracy`: on
    the real images. `classes`: samples a class [K].
    """
    share_K = found['classes'] / found['classes'].sum()
    ratio = lambda x: x.total / x.count
    own = ('fake', 'real', 'classes')
    return {
      **{name: ratio(x) for name, x in found.items() if name not in own},
      'class_entropy': jax.scipy.special.entr(share_K).sum(),
      'frechet': frechet_distance(*_gaussian(found['fake']), *_gaussian(found['real'])),
      'classes': found['classes'],
    }

  def _normalise(self, image_BHWC: Array) -> Array:
    return normalise(image_BHWC, self.data.mean, self.data.std)

  def _tx(self):
    return optim.adam(optim.one_cycle(self.lr, max(self.num_steps, 1)))


def check_judge(config: Any):
  """For `__post_init__` of a config with `judge`, `judge_steps`; ConfigError."""
  config.bounds('judge_steps', least=0)
  if config.judge is not None and not config.judge:
    raise ConfigError('--config.judge= is not allowed: must be a workdir, or None.')
