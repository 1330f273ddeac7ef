r"""Perceptron: one neuron, the rule by which it learns, and how often it can be wrong.

A neuron weighs its inputs, adds a bias and squeezes the sum z = w.x + b into (0, 1):

  p = sigmoid(z) = 1 / (1 + exp(-z)),   class 1 where p > 1/2, which is where z > 0.

Rosenblatt's rule (1958, doi:10.1037/h0042519) looks at one example after the other and
changes nothing while the answer is right. After a mistake, with s = +1 for class 1 and
s = -1 for class 0,

  w <- w + s x,   b <- b + s.

Each such step raises s z of that example by |x|^2 + 1. Write x' = (x, 1) and w' = (w,
b), so that the bias is a weight like any other.

Novikoff's theorem (1962). Let a unit vector u separate the examples by a margin g > 0,
s u.x' >= g, and let |x'| <= R. From w' = 0 the rule makes at most (R / g)^2 mistakes,
in whatever order and however often the examples come. Proof, over k mistakes:

  u.w' grows by s u.x' >= g each time:                            u.w' >= k g
  |w'|^2 grows by 2 s w'.x' + |x'|^2 <= R^2, as s w'.x' <= 0:     |w'|^2 <= k R^2
  so k g <= u.w' <= |w'| <= sqrt(k) R, and k <= (R / g)^2.

  >>> import numpy as np
  >>> bits = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
  >>> majority = (bits.sum(1) >= 2).astype(int)
  >>> neuron = Perceptron(3)
  >>> float(neuron(bits[0]))
  0.5
  >>> neuron.learn(bits, majority)
  [3, 3, 1, 0]
  >>> neuron.weight, neuron.bias
  (array([1., 1., 1.]), -1.0)
  >>> (neuron.predict(bits) == majority).all()
  np.True_
  >>> round(novikoff_bound(bits, majority, np.array([2.0, 2, 2]), -3.0), 1)
  84.0

No line has (0, 0) and (1, 1) on one side and (0, 1) and (1, 0) on the other, so that
XOR is never learnt (Minsky and Papert 1969): a pass without a mistake does not come.

  >>> square = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
  >>> min(Perceptron(2).learn(square, np.array([0, 1, 1, 0]), max_passes=1000)) > 0
  True
"""

import numpy as np


def sigmoid(z):
  """1 / (1 + exp(-z)); of large |z| without an overflow.

  >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
  [0.0, 0.5, 1.0]
  """
  small = np.exp(-np.abs(z))  # In (0, 1]: the power that cannot overflow.
  return np.where(z >= 0, 1, small) / (1 + small)


class Perceptron:
  """One neuron of sigmoid output.

  Attributes:
    weight: float64 [F], zeros before anything was learnt.
    bias: a number, likewise.
  """

  def __init__(self, num_inputs):
    self.weight = np.zeros(num_inputs)
    self.bias = 0.0

  def __call__(self, x):
    """Probabilities of class 1, of inputs [..., F]: [...]."""
    return sigmoid(self.weigh(x))

  def weigh(self, x):
    """z = w.x + b of inputs [..., F]: [...]."""
    return np.asarray(x) @ self.weight + self.bias

  def predict(self, x):
    """Classes 0 or 1 of inputs [..., F]: [...]."""
    return (self.weigh(x) > 0).astype(int)

  def correct(self, x_F, label):
    """One application of the rule; whether the answer before was a mistake."""
    if mistake := bool(self.predict(x_F) != label):
      sign = 2 * label - 1
      self.weight = self.weight + sign * np.asarray(x_F)
      self.bias = self.bias + float(sign)
    return mistake

  def learn(self, x_BF, label_B, max_passes=100):
    """The rule on all examples in turn, until a pass has no mistake.

    Args:
      x_BF: inputs.
      label_B: classes 0 or 1.
      max_passes: the end where no line separates the classes.

    Returns:
      The number of mistakes of each pass; the last is 0 where all was learnt.
    """
    mistakes = []
    while len(mistakes) < max_passes and (not mistakes or mistakes[-1]):
      mistakes.append(sum(self.correct(x, y) for x, y in zip(x_BF, label_B)))
    return mistakes


def novikoff_bound(x_BF, label_B, weight_F, bias):
  """(R / g)^2, the most mistakes of the rule on examples that this line separates.

  Args:
    x_BF: inputs.
    label_B: classes 0 or 1.
    weight_F, bias: of any line that separates them, of any length. The bound is least
      for the line of the largest margin.

  Raises:
    ValueError: the line does not separate the examples.
  """
  with_one = np.column_stack([x_BF, np.ones(len(x_BF))])
  line = np.append(weight_F, bias)
  margin = ((2 * label_B - 1) * (with_one @ line)).min() / np.linalg.norm(line)
  if margin <= 0:
    raise ValueError(f'The line has the margin {margin:.3g}: must be above 0.')
  return float(np.square(with_one).sum(1).max() / margin**2)
