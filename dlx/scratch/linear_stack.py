"""Why a network needs a nonlinearity: a stack of linear layers is one linear layer.

Layer k computes x W_k + b_k. Put one into the next:

  (x W_1 + b_1) W_2 + b_2 = x (W_1 W_2) + (b_1 W_2 + b_2)

again a matrix and a bias. However deep, such a network computes what one layer can, and
no more: it cannot learn XOR. Between two layers a function that is not linear, such as
relu, breaks the step above.

>>> rng = np.random.default_rng(0)
>>> stack = [(rng.normal(size=(4, 4)) / 2, rng.normal(size=4)) for _ in range(20)]
>>> w, b = collapse(stack)
>>> x = rng.normal(size=(5, 4))
>>> bool(np.allclose(forward(stack, x), x @ w + b))
True
>>> bool(np.allclose(forward(stack, x, lambda x: np.maximum(x, 0)), x @ w + b))
False

What depth does change is training: the gradient of W_1 is a product with all W_k above.
"""

from collections.abc import Callable, Sequence

import numpy as np

Layer = tuple[np.ndarray, np.ndarray]  # [inputs, outputs] and [outputs].


def forward(
  layers: Sequence[Layer], x: np.ndarray, activation: Callable = lambda x: x
) -> np.ndarray:
  """The outputs of a stack; [batch, inputs] to [batch, outputs].

  Args:
    layers: weights and biases; the outputs of one are the inputs of the next.
    x: [batch, inputs].
    activation: what stands between two layers.
  """
  for k, (w, b) in enumerate(layers):
    x = (activation(x) if k else x) @ w + b
  return x


def collapse(layers: Sequence[Layer]) -> Layer:
  """The one layer that a stack without activations is.

  >>> collapse([(np.diag([2.0, 3.0]), np.ones(2)), (np.ones((2, 1)), np.zeros(1))])
  (array([[2.],
         [3.]]), array([2.]))
  """
  w, b = layers[0]
  for next_w, next_b in layers[1:]:
    w, b = w @ next_w, b @ next_w + next_b
  return w, b
