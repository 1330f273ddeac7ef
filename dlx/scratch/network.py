r"""Multilayer perceptron: forward, and backward by the chain rule, written by hand.

A layer takes rows x [B, F] to z = x W + b and then to h = act(z). Let L be the loss and
write dA for dL/dA, of the shape of A. From z = x W + b and the chain rule

  dW = x^T dz      dz reaches W[f, g] through every row: sum over the rows of x dz
  db = sum_B dz    b is added to every row
  dx = dz W^T      x[f] reaches every z[g] by W[f, g]

and where x is the output h of the layer below, its dz is dh act'(z), entry by entry.
Backward is this, from the last layer to the first. It begins at the loss:

  half squared error of y = sigmoid(z):  dz = (y - t) y (1 - y) / B
  cross-entropy of p = softmax(z):       dz = (p - t) / B, with t one-hot

`NeuralNetwork` is the net of three inputs, four hidden units and one output, every step
of it in view; `forward` and `backward` are the same for any widths, with ReLU between.

  >>> import numpy as np
  >>> net = NeuralNetwork(3, 4, 1, np.random.default_rng(0))
  >>> x = np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
  >>> target = np.array([[0.0], [1], [1], [0]])
  >>> output = net.forward(x)
  >>> dW1, db1, dW2, db2 = net.backward(x, target, output)
  >>> dW1.shape, db1.shape, dW2.shape, db2.shape
  ((3, 4), (4,), (4, 1), (1,))
  >>> for _ in range(5000):
  ...   net.descend(net.backward(x, target, net.forward(x)), rate=5.0)
  >>> net.forward(x).round().ravel().tolist()
  [0.0, 1.0, 1.0, 0.0]

The functions below use operators and the array's own library, so that the same lines
compute with NumPy and, inside a program of JAX, with jax.numpy:
experiments/foundations/numpy_mlp.py trains MNIST with them.
"""

import numpy as np

from dlx.scratch.perceptron import sigmoid


class NeuralNetwork:
  """Two layers of sigmoids under the half squared error.

  Attributes:
    W1, b1, W2, b2: float64; normal with deviation 1, the biases 0.
    hidden: what `forward` keeps for `backward`.
  """

  def __init__(self, num_inputs, num_hidden, num_outputs, rng):
    self.W1 = rng.normal(size=(num_inputs, num_hidden))
    self.b1 = np.zeros(num_hidden)
    self.W2 = rng.normal(size=(num_hidden, num_outputs))
    self.b2 = np.zeros(num_outputs)
    self.hidden = np.zeros((0, num_hidden))

  def forward(self, x):
    """Outputs in (0, 1) of rows [B, inputs]: [B, outputs]."""
    self.hidden = sigmoid(x @ self.W1 + self.b1)
    return sigmoid(self.hidden @ self.W2 + self.b2)

  def loss(self, target, output):
    """Mean over the rows of half the squared error, summed over the outputs."""
    return 0.5 * np.square(output - target).sum() / len(output)

  def backward(self, x, target, output):
    """(dW1, db1, dW2, db2) of the loss, after `forward` of the same rows."""
    dz2 = (output - target) * output * (1 - output) / len(output)
    dW2, db2 = self.hidden.T @ dz2, dz2.sum(0)
    dz1 = (dz2 @ self.W2.T) * self.hidden * (1 - self.hidden)
    dW1, db1 = x.T @ dz1, dz1.sum(0)
    return dW1, db1, dW2, db2

  def descend(self, gradients, rate):
    """One step of gradient descent."""
    parts = (self.W1, self.b1, self.W2, self.b2)
    for value, slope in zip(parts, gradients):
      value -= rate * slope


def initialise(widths, rng):
  """Layers (W [F, G], b [G]) of a net: He's normal weights, biases of 0.

  Args:
    widths: of the inputs, of each hidden layer and of the outputs.
    rng: NumPy's generator.

  >>> [W.shape for W, b in initialise((784, 300, 10), np.random.default_rng(0))]
  [(784, 300), (300, 10)]
  """
  pairs = zip(widths[:-1], widths[1:])
  he = lambda F, G: rng.normal(scale=np.sqrt(2 / F), size=(F, G))  # arXiv:1502.01852.
  return [(he(F, G), np.zeros(G)) for F, G in pairs]


def forward(layers, x_BF):
  """Logits of a net with ReLU between its layers.

  Returns:
    (logits [B, K], inputs of each layer): the second is what `backward` reads.
  """
  inputs = []
  for i, (W, b) in enumerate(layers):
    inputs.append(x_BF)
    z_BG = x_BF @ W + b[None]
    last = i == len(layers) - 1
    x_BF = z_BG if last else z_BG * (z_BG > 0)
  return x_BF, inputs


def softmax_cross_entropy(logits_BK, target_BK):
  """Mean loss of rows in nats, and its gradient by the logits.

  Args:
    logits_BK: any real numbers; the largest of a row is taken off before exp.
    target_BK: probabilities, each row of sum 1.

  >>> loss, slope = softmax_cross_entropy(np.zeros((1, 4)), np.eye(4)[:1])
  >>> round(float(loss), 4), slope.tolist()
  (1.3863, [[-0.75, 0.25, 0.25, 0.25]])
  """
  xp = logits_BK.__array_namespace__()
  shifted = logits_BK - logits_BK.max(axis=1, keepdims=True)
  total = xp.exp(shifted).sum(axis=1, keepdims=True)
  log_BK = shifted - xp.log(total)
  rows = logits_BK.shape[0]
  return -(target_BK * log_BK).sum() / rows, (xp.exp(log_BK) - target_BK) / rows


def backward(layers, inputs, slope_BK):
  """Gradients (dW, db) of each layer, from the gradient by the logits.

  Args:
    layers: as in `forward`.
    inputs: what `forward` gave.
    slope_BK: dL/dlogits.
  """
  gradients, dz = [], slope_BK
  for i in reversed(range(len(layers))):
    x = inputs[i]
    gradients.append((x.T @ dz, dz.sum(axis=0)))
    if i:  # x = relu(z) of the layer below: its slope is 1 where x is above 0, else 0.
      dz = (dz @ layers[i][0].T) * (x > 0)
  return gradients[::-1]
