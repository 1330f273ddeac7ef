"""Activations by name, with what is known of each.

  activation('relu')     a function of an array of any float dtype to one of that dtype
  ACTIVATIONS['relu']    its range, derivative, pros and cons
  table()                all of them, as it stands in dlx/layers/README.md

Most are jax.nn's own. Where those of x times a gate (silu, gelu, mish) are nan, as
PyTorch's, at an infinite x, these have their limits: 0 below and inf above, with the
derivatives 0 and 1. Softmax is computed in float32 or wider.
"""

import math
from typing import Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.config import check_choice
from dlx.precision import at_least_float32
from dlx.state import Array


class Activation(NamedTuple):
  """What is known of an activation; s is the sigmoid of x where it stands in a text.

  Attributes:
    call: x -> the same shape and dtype.
    formula: of the value.
    derivative: of the value by x.
    least, most: infimum and supremum of the values.
    initialiser: of the weights before it, a name of dlx/layers/initialisers.py.
    pros, cons: for the table.
    source: arXiv id or author.
  """

  call: Callable[[Array], Array]
  formula: str
  derivative: str
  least: float
  most: float
  initialiser: str
  pros: str
  cons: str
  source: str


def gelu(x: Array) -> Array:
  """x Phi(x), Phi the normal distribution function (arXiv:1606.08415).

  Float32 by erf, as exact as PyTorch's. XLA's erfc keeps all digits of the tiny values
  far below 0: value and gradient of [4160, 768] take 3.45 ms with it, 1.8 with erf (two
  cores). At -inf it is nan; `activation('gelu')` is 0.
  """
  if x.dtype != jnp.float32:
    return nn.gelu(x, approximate=False)
  return 0.5 * x * (1 + jax.lax.erf(x * np.float32(0.5**0.5)))


def softmax(x: Array) -> Array:
  """exp(x_k) over the sum of exp(x_j), along the last axis.

  nan in a row with nan, with inf, or of -inf alone; an entry of -inf beside finite ones
  is 0.
  """
  return jax.nn.softmax(at_least_float32(x), -1).astype(x.dtype)


def _gated(call: Callable[[Array], Array]) -> Callable[[Array], Array]:
  """`call`, of the form x gate(x) with a gate from 0 to 1, with its limits at +-inf."""

  def with_limits(x: Array) -> Array:
    infinite = jnp.isinf(x)
    # Not through `call`, whose derivative there is nan and stays so times 0.
    finite = call(jnp.where(infinite, jnp.zeros_like(x), x))
    return jnp.where(infinite, nn.relu(x), finite)

  return with_limits


def _gelu_tanh(x: Array) -> Array:
  return nn.gelu(x, approximate=True)


_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805  # Of SELU.
ACTIVATIONS = {
  'sigmoid': Activation(
    nn.sigmoid,
    '1 / (1 + exp(-x))',
    's (1 - s)',
    0,
    1,
    'xavier_normal',
    'a probability; smooth',
    'slope at most 1/4, 0 at both ends: gradients vanish; mean not 0',
    '-',
  ),
  'tanh': Activation(
    nn.tanh,
    'tanh(x)',
    '1 - tanh(x)^2',
    -1,
    1,
    'xavier_normal',
    'mean 0; slope 1 at 0',
    'slope 0 at both ends',
    '-',
  ),
  'relu': Activation(
    nn.relu,
    'max(0, x)',
    '1 for x > 0, else 0',
    0,
    math.inf,
    'he_normal',
    'cheap; slope 1 for half of the inputs; exact zeros',
    'a unit below 0 for all examples learns no more; mean not 0',
    'Nair and Hinton 2010',
  ),
  'leaky_relu': Activation(
    lambda x: nn.leaky_relu(x, 0.01),
    'x for x >= 0, else 0.01 x',
    '1 for x >= 0, else 0.01',
    -math.inf,
    math.inf,
    'he_normal',
    'no unit dies',
    'one more constant; no exact zeros',
    'Maas et al. 2013',
  ),
  'elu': Activation(
    nn.elu,
    'x for x > 0, else exp(x) - 1',
    '1 for x > 0, else exp(x)',
    -1,
    math.inf,
    'he_normal',
    'mean nearer 0; bounded below',
    'an exponential; slope 0 far below 0',
    'arXiv:1511.07289',
  ),
  'selu': Activation(
    nn.selu,
    '1.0507 x for x > 0, else 1.7581 (exp(x) - 1)',
    '1.0507 for x > 0, else 1.7581 exp(x)',
    -_ALPHA * _SCALE,
    math.inf,
    'lecun_normal',
    'keeps mean 0 and variance 1 over many dense layers, without a norm',
    'only with LeCun initialisation and alpha dropout, and no other layers between',
    'arXiv:1706.02515',
  ),
  'silu': Activation(
    _gated(nn.silu),
    'x s, also called swish',
    's (1 + x (1 - s))',
    -0.2784645427610738,
    math.inf,
    'he_normal',
    'smooth; good in deep convolutional nets',
    'an exponential; least at x = -1.28, not monotone',
    'arXiv:1710.05941',
  ),
  'gelu': Activation(
    _gated(gelu),
    'x Phi(x), by erf',
    'Phi(x) + x phi(x)',
    -0.16997120747990366,
    math.inf,
    'he_normal',
    'smooth; the usual one of transformers',
    'an error function; least at x = -0.75, not monotone',
    'arXiv:1606.08415',
  ),
  'gelu_tanh': Activation(
    _gated(_gelu_tanh),
    'x (1 + tanh(0.7979 (x + 0.044715 x^3))) / 2',
    'that of the formula',
    -0.17004075057125406,
    math.inf,
    'he_normal',
    "GPT-2's; no erf",
    'off gelu by up to 5e-4',
    'arXiv:1606.08415',
  ),
  'mish': Activation(
    _gated(jax.nn.mish),
    'x t, t = tanh(log(1 + exp(x)))',
    't + x s (1 - t^2)',
    -0.30884341301725043,
    math.inf,
    'he_normal',
    'smooth; a little better than silu in some detectors',
    'three transcendental functions; least at x = -1.19, not monotone',
    'arXiv:1908.08681',
  ),
  'softmax': Activation(
    softmax,
    'p = exp(x_k) / sum_j exp(x_j)',
    'dp_k / dx_j = p_k (k = j) - p_k p_j',
    0,
    1,
    'xavier_normal',
    'probabilities of classes that exclude each other',
    'of a whole row: no hidden activation; saturates; losses take its logits',
    'Bridle 1990',
  ),
}
# Other names of the same.
ALIASES = {'swish': 'silu'}
# Those of hidden layers: of one number each.
HIDDEN = tuple(name for name in ACTIVATIONS if name != 'softmax')


def activation(name: str) -> Callable[[Array], Array]:
  """The activation of a name of ACTIVATIONS or ALIASES.

  Raises:
    ConfigError: another name.
  """
  name = ALIASES.get(name, name)
  check_choice('activation', name, [*ACTIVATIONS, *ALIASES])
  return ACTIVATIONS[name].call


def table() -> str:
  """The Markdown table of all: what is stored here, and slopes as they are measured.

  The last column of numbers is the share of inputs x ~ N(0, 1) at which the slope is
  below 0.1 in size.
  """
  lines = [
    '| Name | Value | Derivative | Range | Slope at 0 | Largest | Below 0.1 | Weights '
    '| Pros | Cons | Source |',
    '| --- ' * 11 + '|',
  ]
  points = np.linspace(-6, 6, 12001, dtype=np.float32)
  density = np.exp(-(points**2) / 2)
  for name, a in ACTIVATIONS.items():
    cells = [f'`{name}`', a.formula, a.derivative, f'{_bound(a.least)} to']
    cells[-1] += f' {_bound(a.most)}'
    if name == 'softmax':
      cells += ['-'] * 3
    else:
      slopes = np.asarray(jax.jit(jax.vmap(jax.grad(a.call)))(points))
      small = density[np.abs(slopes) < 0.1].sum() / density.sum()
      cells += [f'{slopes[6000]:.3g}', f'{slopes.max():.3g}', f'{100 * small:.0f} %']
    cells += [f'`{a.initialiser}`', a.pros, a.cons, a.source]
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def _bound(x: float) -> str:
  return f'{x:.3g}'
