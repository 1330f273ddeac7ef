"""Labels without places: connectionist temporal classification (Graves et al. 2006)."""

import chex
import jax.numpy as jnp
import optax

from dlx.precision import at_least_float32
from dlx.state import Array


def ctc(
  logits_BTK: Array,
  label_BN: Array,
  logit_length_B: Array,
  label_length_B: Array,
  blank: int = 0,
) -> Array:
  """Minus the logarithm of the probability of the labels over all alignments [B], nats.

  By optax. At each of T steps a class or the blank is emitted; runs of one class are
  merged, then blanks are taken out.

  Args:
    logits_BTK: of K classes, the blank among them.
    label_BN: int, none of them the blank; what follows the length of a row is not read.
    logit_length_B: int, steps of each row, at most T.
    label_length_B: int, labels of each row, at most N; 0: blanks alone.
    blank: class of the blank.

  Returns:
    [B]; inf, with gradient 0, where there are fewer steps than labels and the blanks
    between equal neighbours.
  """
  chex.assert_rank([logits_BTK, label_BN, logit_length_B, label_length_B], [3, 2, 1, 1])
  chex.assert_equal_shape_prefix([logits_BTK, label_BN, logit_length_B], 1)
  chex.assert_equal_shape([logit_length_B, label_length_B])
  logits_BTK = at_least_float32(logits_BTK)
  after = lambda length_B, size: jnp.arange(size)[None] >= length_B[:, None]
  no_step_BT = after(logit_length_B, logits_BTK.shape[1])
  no_label_BN = after(label_length_B, label_BN.shape[1])
  twice_BN = (label_BN[:, 1:] == label_BN[:, :-1]) & ~no_label_BN[:, 1:]
  possible_B = logit_length_B >= label_length_B + twice_BN.sum(1)
  loss_B = optax.ctc_loss(
    jnp.where(possible_B[:, None, None], logits_BTK, 0),
    no_step_BT.astype(logits_BTK.dtype),
    label_BN,
    no_label_BN.astype(logits_BTK.dtype),
    blank_id=blank,
  )
  return jnp.where(possible_B, loss_B, jnp.inf)
