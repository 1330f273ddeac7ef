"""Seven optimisers written out: what each does with a gradient.

All of them move against the gradient g of a loss at the parameters w. They differ in
what they remember (a mean of gradients, of squares) and in what they divide by.

  SGD        w <- w - lr g
  momentum   v <- mu v + g                      w <- w - lr v
  Nesterov   v <- mu v + g                      w <- w - lr (g + mu v)
  RMSprop    s <- rho s + (1 - rho) g^2         w <- w - lr g / sqrt(s + eps)
  Adam       m <- b1 m + (1 - b1) g             w <- w - lr m' / (sqrt(v') + eps)
             v <- b2 v + (1 - b2) g^2           m' = m / (1 - b1^t), v' = v / (1 - b2^t)
  AdamW      as Adam, and w shrinks by itself   w <- ... - lr decay w
  LAMB       u = m' / (sqrt(v') + eps) + decay w    w <- w - lr u |w| / |u|

In a ravine, where the loss is far steeper across than along, the largest safe lr of SGD
is set by the steep direction and is too small for the other. Momentum adds up what
points the same way each time; RMSprop and Adam give each parameter a length of step of
its own; LAMB ties the length of an array's step to its own, for very large batches.

>>> for name, lr in dict(sgd=0.03, momentum=0.03, adam=0.3).items():
...   path = descend(OPTIMIZERS[name], ravine_slope, np.array([-8.0, 1.0]), 60, lr=lr)
...   print(f'{name:8} {ravine(path[-1]):.1e}')
sgd      8.3e-01
momentum 5.2e-02
adam     5.7e-02

An optimiser is a function (w, g, memory, *, lr, ...) -> (w, memory) of one array of
parameters; memory is () before the first step. The numbers are those of optax.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Memory = tuple[Any, ...]
Step = tuple[np.ndarray, Memory]


def sgd(w: np.ndarray, g: np.ndarray, memory: Memory, *, lr: float) -> Step:
  """Gradient descent; stochastic where g is of a batch (Robbins and Monro 1951).

  >>> sgd(np.array([1.0, 2.0]), np.array([10.0, -10.0]), (), lr=0.1)[0].tolist()
  [0.0, 3.0]
  """
  return w - lr * g, memory


def momentum(w, g, memory, *, lr, mu=0.9) -> Step:
  """The heavy ball (Polyak 1964): a constant g moves it by lr / (1 - mu) g a step."""
  (v,) = memory or (np.zeros_like(w),)
  v = mu * v + g
  return w - lr * v, (v,)


def nesterov(w, g, memory, *, lr, mu=0.9) -> Step:
  """Momentum that looks one step ahead, as in Sutskever et al. (2013)."""
  (v,) = memory or (np.zeros_like(w),)
  v = mu * v + g
  return w - lr * (g + mu * v), (v,)


def rmsprop(w, g, memory, *, lr, rho=0.9, eps=1e-8) -> Step:
  """Divides by a running root mean square (Tieleman and Hinton 2012)."""
  (s,) = memory or (np.zeros_like(w),)
  s = rho * s + (1 - rho) * g**2
  return w - lr * g / np.sqrt(s + eps), (s,)


def adam_direction(w, g, memory, b1, b2, eps) -> Step:
  """m' / (sqrt(v') + eps). The means begin at 0; dividing by 1 - b^t undoes that."""
  t, m, v = memory or (0, np.zeros_like(w), np.zeros_like(w))
  t, m, v = t + 1, b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
  return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps), (t, m, v)


def adam(w, g, memory, *, lr, b1=0.9, b2=0.999, eps=1e-8) -> Step:
  """Adam (arXiv:1412.6980).

  The first step is lr in each direction, whatever the size of the gradient.

  >>> adam(np.zeros(2), np.array([1e-4, -1e4]), (), lr=0.1)[0].round(4).tolist()
  [-0.1, 0.1]
  """
  u, memory = adam_direction(w, g, memory, b1, b2, eps)
  return w - lr * u, memory


def adamw(w, g, memory, *, lr, b1=0.9, b2=0.999, eps=1e-8, decay=1e-4) -> Step:
  """Adam with decoupled weight decay (arXiv:1711.05101): decay is not divided."""
  u, memory = adam_direction(w, g, memory, b1, b2, eps)
  return w - lr * (u + decay * w), memory


def lamb(w, g, memory, *, lr, b1=0.9, b2=0.999, eps=1e-6, decay=0.0) -> Step:
  """LAMB (arXiv:1904.00962): an array moves by the share lr of its own length.

  >>> w = np.array([3.0, 4.0])
  >>> moved = lamb(w, np.array([1e-3, 1e3]), (), lr=0.1)[0]
  >>> np.linalg.norm(moved - w).round(6).item()  # lr |w| = 0.1 x 5.
  0.5
  """
  u, memory = adam_direction(w, g, memory, b1, b2, eps)
  u = u + decay * w
  of_w, of_u = np.linalg.norm(w), np.linalg.norm(u)
  return w - lr * u * (of_w / of_u if of_w and of_u else 1.0), memory


OPTIMIZERS: dict[str, Callable[..., Step]] = {
  f.__name__: f for f in (sgd, momentum, nesterov, rmsprop, adam, adamw, lamb)
}


def descend(
  optimizer: Callable[..., Step], slope: Callable, start, num_steps: int, **rates
) -> np.ndarray:
  """[num_steps + 1, ...]: the way of the parameters from `start`, itself included."""
  path, memory = [start], ()
  for _ in range(num_steps):
    w, memory = optimizer(path[-1], slope(path[-1]), memory, **rates)
    path.append(w)
  return np.stack(path)


def ravine(w):
  """(x^2 + 25 y^2) / 2: 25 times as steep across as along; least at (0, 0)."""
  return (w[0] ** 2 + 25 * w[1] ** 2) / 2


def ravine_slope(w):
  return np.array([w[0], 25 * w[1]])


def rosenbrock(w):
  """(1 - x)^2 + 100 (y - x^2)^2: a bent valley; least at (1, 1) (Rosenbrock 1960)."""
  return (1 - w[0]) ** 2 + 100 * (w[1] - w[0] ** 2) ** 2


def rosenbrock_slope(w):
  across = 200 * (w[1] - w[0] ** 2)
  return np.array([-2 * (1 - w[0]) - 2 * w[0] * across, across])
