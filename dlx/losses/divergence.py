"""Divergences between distributions, in nats."""

import chex
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.losses.classification import softmax_cross_entropy
from dlx.precision import at_least_float32
from dlx.state import Array


def gaussian_kl_terms(mean_BL: Array, log_var_BL: Array) -> Array:
  """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent [B, L], nats.

  `(mean^2 + var - 1 - log_var) / 2`; arXiv 1312.6114, appendix B.
  """
  chex.assert_equal_shape([mean_BL, log_var_BL])
  mean_BL, log_var_BL = at_least_float32(mean_BL), at_least_float32(log_var_BL)
  # expm1, since exp(log_var) - 1 - log_var loses all digits near log_var = 0.
  return (mean_BL**2 + jnp.expm1(log_var_BL) - log_var_BL) / 2


def gaussian_kl(mean_BL: Array, log_var_BL: Array) -> Array:
  """KL of a diagonal Gaussian from the standard normal [B], nats; the sum over L."""
  return gaussian_kl_terms(mean_BL, log_var_BL).sum(-1)


def distillation(
  student_BK: Array,
  teacher_BK: Array,
  label_B: Array | None = None,
  *,
  temperature: float | Array = 4.0,
  alpha: float | Array = 1.0,
) -> Array:
  """Cross-entropy with a teacher's softened answers (arXiv 1503.02531) [B], nats.

  `alpha T^2 KL(teacher / T || student / T) + (1 - alpha) CE(label)`: the KL is zero
  where student and teacher agree; T^2 keeps its gradient's size independent of T.

  Args:
    student_BK: logits.
    teacher_BK: logits; no gradient flows there.
    label_B: may be None where alpha is the number 1.
    temperature: T, above 0.
    alpha: share of the soft part, in [0, 1].

  Raises:
    ConfigError: another alpha, or an array, without labels.
  """
  chex.assert_equal_shape([student_BK, teacher_BK])
  teacher_BK = jax.lax.stop_gradient(at_least_float32(teacher_BK)) / temperature
  student_T_BK = at_least_float32(student_BK) / temperature
  log_t, log_s = jax.nn.log_softmax(teacher_BK), jax.nn.log_softmax(student_T_BK)
  # What the teacher holds impossible (a logit of -inf) counts 0, not 0 times infinity;
  # a teacher of nan does not count 0.
  possible_BK = log_t != -jnp.inf
  terms_BK = jnp.where(possible_BK, jnp.exp(log_t) * (log_t - log_s), 0)
  soft_B = temperature**2 * terms_BK.sum(-1)
  if label_B is None:
    if not (isinstance(alpha, (int, float)) and alpha == 1):
      raise ConfigError(
        f'label_B=None is not allowed with alpha={alpha}: give labels for the share '
        '1 - alpha, or alpha=1.'
      )
    return soft_B
  return alpha * soft_B + (1 - alpha) * softmax_cross_entropy(student_BK, label_B)
