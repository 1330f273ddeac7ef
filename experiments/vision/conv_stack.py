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
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import experiment, losses, optim
from dlx.data.images.resize import resize
from dlx.data.sets import images
from dlx.inspect.fields import FIELDS, receptive_fields
from dlx.layers.activations import activation
from dlx.layers.convolution import Conv
from dlx.tasks.classification import image_classifier, normalised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  side: int = 33  # Pixels each way to which images are enlarged or reduced.
  num_layers: int = 8  # Convolutions.
  kernel: int = 3  # Side of their filters, odd.
  features: int = 8  # Their channels.
  linear: bool = False  # Whether there is nothing between the convolutions; else ReLU.
  lr: float = 3e-3  # Peak of the one-cycle learning rate.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('side', 'num_layers', 'kernel', 'features', least=1)
    self.require('kernel', self.kernel % 2 == 1, 'odd')
    self.bounds('lr', above=0)


# The least run that still has every part.
SMALL = Config.small(side=9, num_layers=2, features=4)


class ConvStack(nn.Module):
  """Convolutions of one stride, and a linear layer on the unit in the middle.

  Attributes: as in Config.
  """

  num_layers: int
  kernel: int
  features: int
  linear: bool
  side: int
  num_outputs: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, x_BHWC: jax.Array, *, train: bool) -> jax.Array:
    """Logits [B, K], of images of any size."""
    del train
    return self.forward(enlarged(x_BHWC, self.side))[0]

  def map(self, x_BHWC: jax.Array) -> jax.Array:
    """The last map [B, side, side, features], of images that have this side."""
    return self.forward(x_BHWC)[1]

  @nn.compact
  def forward(self, x_BHWC: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits and the last map."""
    for i in range(self.num_layers):
      x_BHWC = Conv(
        self.features,
        (self.kernel, self.kernel),
        padding='SAME',
        kernel_init=nn.initializers.he_normal(),
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f'conv{i + 1}',
      )(x_BHWC)
      if not self.linear:
        x_BHWC = activation('relu')(x_BHWC)
    wide = jnp.promote_types(self.dtype, jnp.float32)
    middle_BC = x_BHWC[:, self.side // 2, self.side // 2].astype(wide)
    head = nn.Dense(
      self.num_outputs, dtype=wide, param_dtype=self.param_dtype, name='head'
    )
    return head(middle_BC), x_BHWC


def enlarged(x_BHWC: jax.Array, side: int) -> jax.Array:
  """[B, H, W, C] -> [B, side, side, C], bilinear."""
  return jax.vmap(lambda image: resize(image, side, side))(x_BHWC)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = ConvStack(
    num_layers=config.num_layers,
    kernel=config.kernel,
    features=config.features,
    linear=config.linear,
    side=config.side,
    num_outputs=data.num_classes,
    **config.dtypes,
  )
  classifier = image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.adamw(optim.one_cycle(config.lr, config.num_steps)),
  )
  prepare = normalised(data)

  def last_map(state, x_BHWC) -> Any:
    return model.apply({'params': state.averaged}, x_BHWC, method='map')

  field, figure = receptive_fields(
    last_map,
    lambda batch: enlarged(prepare(batch)['image'], config.side),
    classifier.init,
    classifier.evals['test'].data,
  )
  return classifier._replace(
    evals={**classifier.evals, 'field': field},
    figures={**classifier.figures, 'field': figure},
    metrics={**classifier.metrics, **FIELDS},
  )
