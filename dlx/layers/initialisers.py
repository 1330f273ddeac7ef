"""Initialisers of weights by name, each with the activations that it belongs to.

  initialiser('he_normal')     (key, shape, dtype) -> weights, for flax's layers
  for_activation('relu')       the one that keeps the variance before this activation
  table()                      all of them, as it stands in dlx/layers/README.md

A unit with n inputs of mean square q and weights of variance v has mean square n v q;
the activation takes its share of that. v = 1 / n (LeCun) keeps it where the activation
keeps it, 2 / n (He) where half is lost, as by ReLU. With the mean of inputs and outputs
in place of n (Xavier) the gradient is kept about as well.
"""

from typing import NamedTuple

import jax

from dlx.config import check_choice
from dlx.layers.activations import ACTIVATIONS, ALIASES, activation

Initializer = jax.nn.initializers.Initializer


class Initialiser(NamedTuple):
  """What is known of an initialiser.

  Attributes:
    call: (key, shape, dtype) -> array; the last axis of the shape is that of the
      outputs, the one before that of the inputs, others are a receptive field.
    variance: of an entry, of a kernel of `in` inputs and `out` outputs.
    belongs: with which activations.
    source: arXiv id or author.
  """

  call: Initializer
  variance: str
  belongs: str
  source: str


_make = jax.nn.initializers
_GLOROT = 'Glorot and Bengio 2010'
_HE = 'arXiv:1502.01852'
_LECUN = 'LeCun et al. 1998'
_ODD = 'tanh, sigmoid, softmax, linear'
_HALF = 'relu, leaky_relu; elu, silu, gelu, mish nearly'
_KEEPS = 'selu, linear'
INITIALISERS = {
  'xavier_normal': Initialiser(_make.glorot_normal(), '2 / (in + out)', _ODD, _GLOROT),
  'xavier_uniform': Initialiser(
    _make.glorot_uniform(), '2 / (in + out)', _ODD, _GLOROT
  ),
  'he_normal': Initialiser(_make.he_normal(), '2 / in', _HALF, _HE),
  'he_uniform': Initialiser(_make.he_uniform(), '2 / in', _HALF, _HE),
  'lecun_normal': Initialiser(_make.lecun_normal(), '1 / in', _KEEPS, _LECUN),
  'lecun_uniform': Initialiser(_make.lecun_uniform(), '1 / in', _KEEPS, _LECUN),
  'orthogonal': Initialiser(
    _make.orthogonal(),
    '1 / max(in, out)',
    'linear, tanh; recurrent kernels: lengths are kept exactly',
    'arXiv:1312.6120',
  ),
  'normal': Initialiser(
    _make.normal(0.01),
    '0.0001, whatever the width',
    'none: what was usual before; vanishes in deep nets of fewer than 10000 inputs',
    'Krizhevsky et al. 2012',
  ),
}
# Other names of the same.
SYNONYMS = {f'glorot_{kind}': f'xavier_{kind}' for kind in ('normal', 'uniform')}


def initialiser(name: str) -> Initializer:
  """The initialiser of a name of INITIALISERS or SYNONYMS.

  Raises:
    ConfigError: another name.
  """
  name = SYNONYMS.get(name, name)
  check_choice('initialiser', name, [*INITIALISERS, *SYNONYMS])
  return INITIALISERS[name].call


def for_activation(name: str) -> Initializer:
  """The initialiser that belongs to an activation, by its name.

  Raises:
    ConfigError: no name of an activation.
  """
  activation(name)  # Refuses what is none.
  return initialiser(ACTIVATIONS[ALIASES.get(name, name)].initialiser)


def table() -> str:
  """The Markdown table of all."""
  lines = ['| Name | Variance | Belongs to | Source |', '| --- ' * 4 + '|']
  for name, i in INITIALISERS.items():
    lines.append(f'| `{name}` | {i.variance} | {i.belongs} | {i.source} |')
  return '\n'.join(lines)
