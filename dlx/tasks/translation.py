"""What every encoder-decoder over pairs of texts shares: data, metrics, translations.

An experiment gives the pairs, the model and the optimiser.
"""

import functools
import math
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import optax

from dlx import labels, losses, metrics
from dlx.data.batches.choose import splits
from dlx.data.batches.resident import InOrder
from dlx.data.sets.translation import PairData
from dlx.data.text.vocabulary import PAD
from dlx.experiment import LEARNT, Config, Experiment, Field, Figure, Function, Overfit
from dlx.figures import text
from dlx.layers import mesh
from dlx.models.encoder_decoder import PLACEMENT, EncoderDecoder, flops_per_pair, take
from dlx.sampling.beam import beam_search
from dlx.state import Array, Batch, Metric, Metrics, TrainState, ratios
from dlx.train.supervised import make_predict, supervised

NUM_SHOWN = 8  # Pairs of the figure of translations.


def declarations(data: PairData) -> dict[str, Metric]:
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


def translation(
  config: Config,
  data: PairData,
  *,
  model: EncoderDecoder,
  tx: optax.GradientTransformation,
  label_smoothing: float = 0.0,
  beams: int = 1,
  length_penalty: float = 0.6,
  figures: Mapping[str, Figure] | None = None,
  overfit: Overfit | str | None = LEARNT,
) -> Experiment:
  """Targets token by token from sources, with translations by greedy or beam search.

  Functions: `translate`, the target that the model writes for a source, with the
  options `num_tokens` (most tokens, the end included), `beams` (1: greedy) and
  `length_penalty` (see `beam_search`); `score`, the log-likelihood of a target.

  The splits report `loss` (nats a token), `perplexity`, `accuracy` and `exact`. A token
  counts the same in whichever pair it stands; `exact` is of pairs. BLEU is not among
  them.

  Args:
    config: see `supervised`.
    data: pairs.
    model: of `data.vocabulary_size` tokens.
    tx: the optimiser.
    label_smoothing: of the training loss, see `losses.softmax_cross_entropy`.
    beams: of `translate`, where it is not asked for others.
    length_penalty: likewise.
    figures: besides `translations` and `attention`.
    overfit: see `Experiment`.
  """
  train_data, passes = splits(data.train, data.test, config)

  def translate(
    state: TrainState,
    inputs,
    *,
    num_tokens=data.lengths[1],
    beams=beams,
    length_penalty=length_penalty,
  ):
    apply = functools.partial(model.apply, {'params': state.averaged})
    source_BS = inputs['source']

    def step(token_BT, decoding):
      found: Any = apply(token_BT, decoding, method='extend')
      return found

    found = beam_search(
      step,
      take,
      apply(source_BS, num_tokens, method='start'),
      jnp.full((len(source_BS), 1), PAD, jnp.int32),
      num_tokens,
      beams=beams,
      end=data.end,
      fill=PAD,
      length_penalty=length_penalty,
    )
    best_BT = found.tokens_BKT[:, 0]
    return {'target': jnp.where(best_BT == data.end, PAD, best_BT)}

  predict = make_predict(config, model, inputs='pair', prepare=as_pair)

  def score(state, inputs):
    target_BT = inputs['target']
    ended_BT = with_end(target_BT, data.end)
    batch = {'source': inputs['source'], 'target': ended_BT}
    logits_BTV = predict(state, batch)
    return {'log_likelihood': -target_loss(logits_BTV, as_pair(batch))}

  tokens = Field('tokens', ('length',), 'int32', vocabulary=data.vocabulary, pad=PAD)
  functions = {
    'translate': Function(
      translate,
      {'source': tokens},
      {'target': tokens._replace(shape=('num_tokens',))},
      {
        'num_tokens': data.lengths[1],
        'beams': beams,
        'length_penalty': float(length_penalty),
      },
    ),
    'score': Function(
      score,
      {'source': tokens, 'target': tokens},
      {'log_likelihood': Field('number', (), 'float32')},
    ),
  }

  def written(state, key, batch):
    del key
    source_BS = batch['source']
    found = functions['translate'].call(state, {'source': source_BS})
    return {'source': source_BS, 'written': found['target'], 'target': batch['target']}

  def draw_written(tree):
    words = data.vocabulary(None)
    read = lambda rows: [
      words.decode([token for token in row if token != data.end]) for row in rows
    ]
    return text.translations(*(read(tree[k]) for k in ('source', 'written', 'target')))

  def attention(state, key, batch):
    del key
    pair = as_pair({k: batch[k][:1] for k in ('source', 'target')})
    variables = {'params': state.averaged}
    found: Any = model.apply(variables, pair['pair'], method='cross_attention')
    return {**{k: batch[k][0] for k in ('source', 'target')}, 'weights': found[:, 0]}

  def draw_attention(tree):
    words = data.vocabulary(None)
    source, target = (tree[k][tree[k] != PAD] for k in ('source', 'target'))
    name = lambda token: 'end' if token == data.end else words.decode([token])
    weights_NHTS = tree['weights'][:, :, : len(target), : len(source)]
    return text.attention_maps(
      weights_NHTS, [*map(name, target)], keys=[*map(name, source)]
    )

  few = InOrder(data.test, NUM_SHOWN)
  return supervised(
    config,
    model=model,
    inputs='pair',
    prepare=as_pair,
    loss=functools.partial(target_loss, label_smoothing=label_smoothing),
    eval_loss=target_loss,
    tx=tx,
    train_data=train_data,
    eval_data=passes,
    metrics=target_metrics,
    summarize=summarize,
    declared=declarations(data),
    headline=('test/exact', 'test/loss'),
    functions=functions,
    figures={
      'translations': Figure(draw_written, compute=written, data=few),
      'attention': Figure(draw_attention, compute=attention, data=few),
      **(figures or {}),
    },
    overfit=overfit,
    placement=PLACEMENT,
    flops_per_step=config.batch_size * flops_per_pair(model, *data.lengths),
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
