"""PyTorch, TensorFlow and JAX side by side: one operation, one result, three spellings.

What differs in kind:

- an array of JAX never changes: `x.at[i].set(v)` is another one;
- no array holds a gradient: `jax.grad` turns a function into the one that computes its
  gradient. There is no `requires_grad`, no `backward()` and no `GradientTape`;
- a `Variable` is an argument and a result of a function, such as a train step;
- a `placeholder` (gone from TensorFlow since 2.0) is an argument of a jitted function;
- a random draw takes a key, and one key always gives the same numbers.

In TABLE a semicolon ends a line of code, and the last line has the result that stands
beside the subject. `__test__` hands the column of JAX to doctest; the others are run
by a test where PyTorch or TensorFlow is installed.

>>> [subject for subject, *_ in rows()][:4]
['constant', 'one number', 'range, other dtype', 'shape']
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

BEFORE = {
  'torch': 'import torch; x = torch.arange(6.0).reshape(2, 3)',
  'tf': 'import tensorflow as tf; x = tf.reshape(tf.range(6.0), (2, 3))',
  'jax': 'import jax, jax.numpy as jnp; x = jnp.arange(6.0).reshape(2, 3)',
}

TABLE = """
constant = [1.0, 2.0]
torch: torch.tensor([1.0, 2.0])
tf:    tf.constant([1.0, 2.0])
jax:   jnp.array([1.0, 2.0])

one number = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
torch: torch.zeros(2, 3)
tf:    tf.zeros((2, 3))
jax:   jnp.zeros((2, 3))

range, other dtype = [0.0, 2.0, 4.0]
torch: torch.arange(0, 6, 2).to(torch.float32)
tf:    tf.cast(tf.range(0, 6, 2), tf.float32)
jax:   jnp.arange(0, 6, 2).astype(jnp.float32)

shape = [2, 3]
torch: x.shape
tf:    x.shape
jax:   x.shape

reshape = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
torch: x.reshape(3, -1)
tf:    tf.reshape(x, (3, -1))
jax:   x.reshape(3, -1)

transpose = [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
torch: x.permute(1, 0)
tf:    tf.transpose(x, (1, 0))
jax:   x.transpose(1, 0)

new axis = [2, 1, 3]
torch: x.unsqueeze(1).shape
tf:    tf.expand_dims(x, 1).shape
jax:   x[:, None].shape

join = [4, 3]
torch: torch.cat([x, x], dim=0).shape
tf:    tf.concat([x, x], axis=0).shape
jax:   jnp.concatenate([x, x], axis=0).shape

product of matrices = [[5.0, 14.0], [14.0, 50.0]]
torch: x @ x.T
tf:    x @ tf.transpose(x)
jax:   x @ x.T

mean over an axis = [[1.0], [4.0]]
torch: x.mean(dim=1, keepdim=True)
tf:    tf.reduce_mean(x, axis=1, keepdims=True)
jax:   x.mean(axis=1, keepdims=True)

pick by index = [1.0, 5.0]
torch: x.gather(1, torch.tensor([[1], [2]]))[:, 0]
tf:    tf.gather(x, [1, 2], batch_dims=1)
jax:   jnp.take_along_axis(x, jnp.array([[1], [2]]), axis=1)[:, 0]

softmax = [0.09, 0.2447, 0.6652]
torch: torch.softmax(x[0], dim=-1)
tf:    tf.nn.softmax(x[0])
jax:   jax.nn.softmax(x[0])

write an entry = [0.0, 7.0, 0.0]
torch: y = torch.zeros(3); y[1] = 7.0; y
tf:    y = tf.Variable(tf.zeros(3)); y = y[1].assign(7.0); y
jax:   y = jnp.zeros(3); y = y.at[1].set(7.0); y

a parameter moves = 0.5
torch: w = torch.nn.Parameter(torch.tensor(1.0)); w.data -= 0.5; w.data
tf:    w = tf.Variable(1.0); w = w.assign_sub(0.5); w
jax:   step = jax.jit(lambda w: w - 0.5); w = step(1.0); w

gradient = 6.0
torch: w = torch.tensor(3.0, requires_grad=True); (w**2).backward(); w.grad
tf:    w = tf.Variable(3.0); with tf.GradientTape() as t: y = w**2; t.gradient(y, w)
jax:   jax.grad(lambda w: w**2)(3.0)

placeholder, compiled = 8.0
torch: f = lambda x: x.sum() - 7; f(x)
tf:    f = tf.function(lambda x: tf.reduce_sum(x) - 7); f(x)
jax:   f = jax.jit(lambda x: x.sum() - 7); f(x)

for each row = [5.0, 50.0]
torch: torch.vmap(lambda r: r @ r)(x)
tf:    tf.vectorized_map(lambda r: tf.reduce_sum(r * r), x)
jax:   jax.vmap(lambda r: r @ r)(x)

random = [4]
torch: torch.randn(4, generator=torch.Generator().manual_seed(0)).shape
tf:    tf.random.stateless_normal((4,), seed=(0, 0)).shape
jax:   jax.random.normal(jax.random.key(0), (4,)).shape
"""


def show(x: Any) -> Any:
  """Lists of an array of any of the libraries, to four digits."""
  y = np.asarray(x)
  return np.round(y.astype(np.float64) if y.dtype.kind == 'f' else y, 4).tolist()


def rows() -> Iterator[tuple[str, str, dict[str, str]]]:
  """Subject, result, and the code by library."""
  for block in TABLE.strip().split('\n\n'):
    subject, *codes = block.split('\n')
    name, result = subject.split(' = ')
    yield name, result, {k: v.strip() for k, v in (c.split(':', 1) for c in codes)}


def examples(library: str) -> str:
  """The column of a library, one of BEFORE, as text for doctest."""
  lines = BEFORE[library].split('; ')
  for _, result, codes in rows():
    *steps, last = codes[library].split('; ')
    lines += [*steps, f'show({last})\n{result}']
  return ''.join(f'>>> {line}\n' for line in lines)


__test__ = {'jax': examples('jax')}
