"""What is asked of the targets of pairs: losses and shares after the right tokens."""

import functools
import math
from typing import Any, Callable, Mapping, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from dlx import labels, losses, metrics
from dlx.data.sets.characters import Characters
from dlx.data.text.padded import Padded
from dlx.data.text.vocabulary import PAD
from dlx.layers import mesh
from dlx.state import Array, Batch, Metric, Metrics, ratios


class Tokens(Protocol):
  """What is known of the tokens of pairs, as `PairData` describes it."""

  @property
  def vocabulary_size(self) -> int: ...

  @property
  def end(self) -> int: ...

  @property
  def lengths(self) -> tuple[int, int]: ...

  @property
  def unit(self) -> str: ...

  @property
  def vocabulary(self) -> Callable[[Any], Any]: ...


class Symbols(NamedTuple):
  """Tokens of generated strings: 0 is PAD, i the i-th character, the last is the end.

  Attributes:
    characters: that strings are of.
    lengths: S and T, most tokens of a source and, with its end, of a target.
  """

  characters: str
  lengths: tuple[int, int]
  unit = 'character'

  @property
  def end(self) -> int:
    """The last token."""
    return len(self.characters) + 1

  @property
  def vocabulary_size(self) -> int:
    """V, padding and the end included."""
    return self.end + 1

  def vocabulary(self, data_dir: Any = None) -> Padded:
    """Strings as tokens and back."""
    del data_dir
    return Padded(Characters(f'\0{self.characters}'))


def declarations(data: Tokens) -> dict[str, Metric]:
  """What a model of these pairs reports, with what a guess among all tokens gives."""
  unit, size = data.unit, data.vocabulary_size - 1  # Padding is no target.
  return {
    'loss': Metric(
      'Loss',
      'lower',
      f'Mean over the {unit}s of the targets, their ends included, of the negative '
      f'logarithm of the probability that the model gives to the next {unit} after the '
      'right ones; in training with the label smoothing.',
      f'nats a {unit}',
      'loss',
      math.log(size),
    ),
    'perplexity': Metric(
      'Perplexity',
      'lower',
      f'Exponential of the loss: among so many equally likely {unit}s the model is '
      'undecided.',
      '',
      'perplexity',
      float(size),
    ),
    'accuracy': Metric(
      'Accuracy',
      'higher',
      f'Share of the {unit}s of the targets, their ends included, that are the '
      'likeliest after the right ones.',
      '%',
      'share',
      1 / size,
    ),
    'exact': Metric(
      'Exact targets',
      'higher',
      f'Share of the targets of which every {unit} and the end are the likeliest: just '
      'the targets that greedy decoding writes without a fault.',
      '%',
      'share',
    ),
  }


def bleu_declaration(unit: str) -> Metric:
  """BLEU of tokens, as `metrics.token_bleu` computes it."""
  return metrics.BLEU['bleu']._replace(
    meaning=f'Of what the model writes, the geometric mean of the shares of n-grams of '
    f'{unit}s, n from 1 to 4, that stand in the target, lowered for texts that are too '
    'short; an unknown word matches nothing.'
  )


def as_pair(batch: Batch) -> dict[str, Any]:
  """Adds `pair`, what the model reads; `weight` becomes that of the target's tokens.

  Args:
    batch: `source` [B, S], `target` [B, T] with its end; `weight` [B], or all ones.
  """
  target_BT = batch['target']
  begin_B1 = jnp.full_like(target_BT[:, :1], PAD)
  input_BT = jnp.concatenate([begin_B1, target_BT[:, :-1]], 1)
  # The end is no padding, and what follows it is not looked at.
  count_B = (target_BT != PAD).sum(1).astype(jnp.float32)
  weight_B = batch['weight'] * count_B if 'weight' in batch else count_B
  return {
    **batch,
    'pair': {'source': batch['source'], 'input': input_BT},
    'weight': weight_B,
  }


def with_end(target_BT: Array, end: int) -> Array:
  """Targets with the token `end` behind the last one, [B, T + 1]."""
  wide_BT = jnp.pad(target_BT, ((0, 0), (0, 1)), constant_values=PAD)
  places_1T = jnp.arange(wide_BT.shape[1])[None]
  last_B1 = jnp.where(wide_BT != PAD, places_1T + 1, 0).max(1, keepdims=True)
  return jnp.where(places_1T == last_B1, end, wide_BT)


def target_loss(logits_BTV: Array, batch: Batch, label_smoothing: float = 0.0) -> Array:
  """Cross-entropy in nats a token: [B], the mean over the target and its end."""
  target_BT = batch['target']
  losses_BT = _by_token(
    functools.partial(losses.softmax_cross_entropy, label_smoothing=label_smoothing),
    logits_BTV,
    target_BT,
  )
  return _of_target(losses_BT, target_BT)


def target_metrics(logits_BTV: Array, batch: Batch, weight_B: Array) -> Metrics:
  """Shares of the tokens, and of the targets, that are right after the right ones."""
  target_BT = batch['target']
  right_BT = logits_BTV.argmax(2) == target_BT
  known_BT = labels.is_index(target_BT, logits_BTV.shape[-1])
  share_BT = jnp.where(known_BT, right_BT.astype(jnp.float32), jnp.nan)
  exact_B = (right_BT | (target_BT == PAD)).all(1).astype(jnp.float32)
  return {
    'accuracy': metrics.mean(_of_target(share_BT, target_BT), weight_B),
    'exact': metrics.mean(exact_B, (weight_B > 0).astype(jnp.float32)),
  }


def summarize(sums: Metrics) -> Mapping[str, Any]:
  """Every mean, and of the loss `perplexity`."""
  found = dict(ratios(sums))
  return {**found, 'perplexity': jnp.exp(found['loss'])}


def _by_token(loss: Any, logits_BTV: Array, target_BT: Array) -> Array:
  if mesh.size('sequence') > 1:  # Both axes are divided: merging them would gather.
    return jax.vmap(loss)(logits_BTV, target_BT)
  flat_N = loss(logits_BTV.reshape(-1, logits_BTV.shape[-1]), target_BT.reshape(-1))
  return flat_N.reshape(target_BT.shape)


def _of_target(values_BT: Array, target_BT: Array) -> Array:
  """The mean over the tokens of each target; 0 of one without any."""
  real_BT = (target_BT != PAD).astype(values_BT.dtype)
  total_B = jnp.where(real_BT > 0, values_BT, 0).sum(1)
  return total_B / jnp.maximum(real_BT.sum(1), 1)
