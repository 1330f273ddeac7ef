"""Custom gradients in JAX: a derivative that is given, not derived.

Three reasons, and a function of each:

- the gradient shall be another one: `clip_gradient` bounds it, `straight_through`
  passes it through a step function, whose true derivative is 0 almost everywhere;
- the derived one is right on paper and wrong in floating point: `log1p_exp`;
- it can be written in fewer operations or kept values: `softmax_cross_entropy`.

`custom_jvp` gives the forward rule, how a change of the input changes the output. JAX
transposes it for reverse mode, so that both modes and higher derivatives work: the
first choice. `custom_vjp` gives the reverse rule, what comes back to the inputs for a
gradient g of the output. Forward mode is then an error; it is for rules that are not
linear in a tangent (clipping), or that choose what is kept for the way back.

In PyTorch both are a `torch.autograd.Function`.
"""

import jax
from jax import Array
import jax.numpy as jnp

# A gradient with another size.


@jax.custom_vjp
def clip_gradient(x: Array, bound: float | Array) -> Array:
  """x itself; the gradient that comes back is clipped to -bound ... bound.

  Entry by entry, where it is called: inside a long recurrence it keeps one step from
  spoiling all before. Optimisers clip the norm of the whole gradient instead.

  Args:
    x: any shape.
    bound: at least 0; it receives no gradient.

  >>> jax.grad(lambda x: clip_gradient(x, 1.0) ** 2)(4.0).item()  # Unbounded 8.
  1.0
  """
  del bound
  return x


def _clip_forward(x, bound):
  return x, bound


def _clip_backward(bound, g):
  return jnp.clip(g, -bound, bound), jnp.zeros_like(bound)


clip_gradient.defvjp(_clip_forward, _clip_backward)

# A gradient where there is none.


@jax.custom_jvp
def straight_through(x: Array) -> Array:
  """x rounded to whole numbers; the derivative is that of x (arXiv:1308.3432).

  The same without a rule: x + stop_gradient(round(x) - x).

  >>> loss = lambda x: (straight_through(x) - 5.0) ** 2  # (2 - 5)^2 at 2.4
  >>> [y.item() for y in jax.value_and_grad(loss)(2.4)]
  [9.0, -6.0]
  >>> jax.grad(lambda x: (jnp.round(x) - 5.0) ** 2)(2.4).item() == 0
  True
  """
  return jnp.round(x)


@straight_through.defjvp
def _straight_through_rule(primals, tangents):
  return straight_through(*primals), tangents[0]


# A gradient that survives floating point.


@jax.custom_jvp
def log1p_exp(x: Array) -> Array:
  """log(1 + e^x), softplus, and its derivative sigmoid(x) = 1 / (1 + e^-x).

  log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), whose exponential cannot overflow. As it
  is written, e^x / (1 + e^x) is inf / inf from x = 89 on in float32.

  >>> naive = lambda x: jnp.log(1 + jnp.exp(x))
  >>> [y.item() for y in jax.value_and_grad(naive)(100.0)]
  [inf, nan]
  >>> [y.item() for y in jax.value_and_grad(log1p_exp)(100.0)]
  [100.0, 1.0]
  """
  return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@log1p_exp.defjvp
def _log1p_exp_rule(primals, tangents):
  (x,), (dx,) = primals, tangents
  return log1p_exp(x), jax.nn.sigmoid(x) * dx


# A gradient that is one formula.


@jax.custom_vjp
def softmax_cross_entropy(logits: Array, label: Array) -> Array:
  """-log softmax(logits)[label], fused.

  With p = softmax(logits) the gradient is p - onehot(label): one array is kept for the
  way back, and 1 / p, which overflows where p underflows, never appears.

  Args:
    logits: [..., K].
    label: [...], whole numbers in 0 ... K-1.

  Returns:
    [...], in nats.

  >>> logits = jnp.array([2.0, 1.0, 0.1])  # softmax 0.659, 0.242, 0.099
  >>> [f'{g:.3f}' for g in jax.grad(softmax_cross_entropy)(logits, jnp.array(0))]
  ['-0.341', '0.242', '0.099']
  """
  return _cross_entropy_forward(logits, label)[0]


def _cross_entropy_forward(logits, label):
  log_p = logits - jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  loss = -jnp.take_along_axis(log_p, label[..., None], axis=-1)[..., 0]
  return loss, (log_p, label)


def _cross_entropy_backward(kept, g):
  log_p, label = kept
  onehot = jax.nn.one_hot(label, log_p.shape[-1], dtype=log_p.dtype)
  return g[..., None] * (jnp.exp(log_p) - onehot), None


softmax_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
