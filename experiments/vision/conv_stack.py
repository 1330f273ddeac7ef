"""A stack of convolutions whose middle unit names the image: what does it see of it?

  python -m launch.train --exp=conv_stack
  python -m launch.train --exp=conv_stack --config.num_layers=16

Images are enlarged to `side` pixels, so that they are larger than what one unit can
see. Convolutions of stride 1 follow, without batch norm and without a pool, and a
linear layer that reads the unit in the middle of the last map alone. The evaluation
`field` reports the side of what this unit can see by theory, 2 n + 1 of n layers of
3 x 3, what gradients find, and the effective field of Luo et al. (arXiv 1701.04128),
which before training grows as the root of n alone.

Measured: field 17 pixels, effective 13.34; accuracy 64.44 % (1 seed).
"""

import dataclasses

import jax.numpy as jnp

from dlx import experiment, losses, optim
from dlx.data.images.resize import resize
from dlx.data.sets import images
from dlx.inspect.fields import FIELDS, receptive_fields
from dlx.models.conv_stack import ConvStack
from dlx.tasks.classification import image_classifier, normalised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  side: int = 33  # Pixels each way to which images are enlarged or reduced.
  num_layers: int = 8  # Convolutions.
  kernel: int = 3  # Side of the filters, odd.
  features: int = 8  # Channels of each convolution.
  linear: bool = False  # Whether there is nothing between the convolutions; else ReLU.
  lr: float = 3e-3  # Peak of the one-cycle learning rate.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('side', 'num_layers', 'kernel', 'features', least=1)
    self.require('kernel', self.kernel % 2 == 1, 'odd')
    self.bounds('lr', above=0)


# The least run that still has every part.
SMALL = Config.small(side=9, num_layers=2, features=4)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = ConvStack(
    num_layers=config.num_layers,
    kernel=config.kernel,
    features=config.features,
    linear=config.linear,
    num_outputs=data.num_classes,
    **config.dtypes,
  )
  fit = lambda image: resize(image, config.side, config.side)
  classifier = image_classifier(
    config,
    data,
    model=model,
    fit=fit,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.adamw(optim.one_cycle(config.lr, config.num_steps)),
  )
  prepare = normalised(data, fit)

  def last_map(state, x_BHWC):
    found = model.apply({'params': state.averaged}, x_BHWC, method='map')
    return jnp.asarray(found)

  field, figure = receptive_fields(
    last_map,
    lambda batch: prepare(batch)['image'],
    classifier.init,
    classifier.evals['test'].data,
  )
  return classifier._replace(
    evals={**classifier.evals, 'field': field},
    figures={**classifier.figures, 'field': figure},
    metrics={**classifier.metrics, **FIELDS},
  )
