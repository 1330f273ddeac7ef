"""What encoders that learn from hidden tokens share: data, losses, metrics, figures.

An experiment gives the corpus, the model and the optimiser (arXiv:1810.04805).
"""

import math
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import labels, losses
from dlx.data.batches.segments import AllSegments, Segments
from dlx.data.sets.corpora import LEAST_TOKENS, Corpus
from dlx.data.text import masking
from dlx.data.text.marked import END, HIDDEN, MARKS, Marked
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment, Field, Figure, Function
from dlx.figures import text
from dlx.models.bert import PAD, PLACEMENT, BertPretrainer, flops_per_row
from dlx.state import Array, Batch, Mean, Metric, Metrics, TrainState, mean, ratios
from dlx.train.supervised import supervised

SHOWN = 6  # Texts in the figure.
TOKENIZER = 'bert'  # Part of model_state that holds the merges, as of params.
NONE = -1  # Where there is no merge.


def declarations(vocabulary_size: int, pairs: bool) -> dict[str, Metric]:
  """What is reported, with what so many equally likely tokens would give."""
  found = {
    'masked': Metric(
      'Loss of hidden tokens',
      'lower',
      'Mean over the hidden tokens of the negative logarithm of the probability that '
      'the model gives to what stood there.',
      'nats a token',
      'loss',
      math.log(vocabulary_size),
    ),
    'masked_accuracy': Metric(
      'Accuracy of hidden tokens',
      'higher',
      'Share of the hidden tokens that are the likeliest at their place.',
      '%',
      'share',
      1 / vocabulary_size,
    ),
    'unigram': Metric(
      'Unigram entropy',
      None,
      'Entropy of the hidden tokens by how often each token is hidden: the least loss '
      'without any other token of the text.',
      'nats a token',
      'loss',
    ),
    'gain': Metric(
      'Gain over unigrams',
      'higher',
      'Unigram entropy less the loss of hidden tokens: what the text around tells.',
      'nats a token',
    ),
  }
  if pairs:
    found['next'] = Metric(
      'Loss of pairs',
      'lower',
      'Cross-entropy of whether the second text follows the first.',
      'nats',
      'loss',
      math.log(2),
    )
    found['next_accuracy'] = Metric(
      'Accuracy of pairs',
      'higher',
      'Share of the pairs of which the model tells whether the second follows.',
      '%',
      'share',
      0.5,
    )
  return found


def masked_language_model(
  config: Config,
  data: Corpus,
  *,
  model: BertPretrainer,
  tx: optax.GradientTransformation,
  share: float = 0.15,
) -> Experiment:
  """Hidden tokens, and whether a text follows another, learnt from a corpus.

  The sum of both losses is trained, each the mean over hidden tokens of its row's: a
  row counts by them. The split `validation` hides the same tokens at every pass; its
  `masked` is the mean over all hidden tokens.

  Functions: `reconstruct`, the text with its hidden tokens filled in, and `encode`, the
  pooled state of a text.

  Args:
    config: see `supervised`.
    data: the corpus; texts of such a length that a row fits `model.bert.context`.
    model: with `next_sentence` the corpus must hold documents.
    tx: the optimiser.
    share: of the tokens that are hidden.

  Raises:
    ConfigError: pairs of a corpus without documents, or rows that do not fit.
  """
  pairs, size = model.next_sentence, data.vocabulary_size
  if pairs and not data.documents:
    raise ConfigError(
      f'--config.next_sentence=True is not allowed: the texts of {data.name} do not '
      'follow each other: set --config.next_sentence=False.'
    )
  (each,) = data.train.shapes['token'].shape
  length = 2 * each + 3 if pairs else each + 2
  if length > model.bert.context:
    raise ConfigError(
      f'max_length={each} of a text is not allowed: rows would have {length} tokens, '
      f'the model reads {model.bert.context}.'
    )

  def prepare(batch: Batch) -> Batch:
    token_BL = batch['token']
    joined = masking.pair(token_BL, batch['other']) if pairs else None
    token_BT, segment_BT = joined or masking.single(token_BL)
    masked = masking.hide(batch['seed'], token_BT, size, share)
    hidden_B = masked.counts_BM.sum(1)
    found: dict[str, Any] = {
      **batch,
      'inputs': {
        'token': masked.token_BT,
        'segment': segment_BT,
        'position': masked.position_BM,
      },
      'target': masked.target_BM,
      'counts': masked.counts_BM,
      'weight': hidden_B * batch.get('weight', jnp.ones_like(hidden_B)),
    }
    return found

  def loss(outputs: Any, batch: Batch) -> dict[str, Any]:
    logits_BMV, target_BM = outputs['masked'], batch['target']
    nats_N = losses.softmax_cross_entropy(
      logits_BMV.reshape(-1, logits_BMV.shape[-1]), target_BM.reshape(-1)
    )
    found = {'masked': _of_row(nats_N.reshape(target_BM.shape), batch)}
    if pairs:
      nats_B = losses.softmax_cross_entropy(outputs['next'], batch['next'])
      found['next'] = jnp.where(batch['asked'] > 0, nats_B, 0)
    return found

  def accuracies(outputs: Any, batch: Batch, weight_B: Array) -> Metrics:
    right_BM = outputs['masked'].argmax(-1) == batch['target']
    found = {
      'masked_accuracy': mean(_of_row(right_BM.astype(jnp.float32), batch), weight_B)
    }
    if pairs:
      right_B = (outputs['next'].argmax(-1) == batch['next']).astype(jnp.float32)
      asked_B = batch['asked'] * (weight_B > 0)
      found['next_accuracy'] = Mean((right_B * asked_B).sum(), asked_B.sum())
    return found

  def sums(outputs: Any, batch: Batch, weight_B: Array) -> Metrics:
    counts_BM = batch['counts'] * (weight_B > 0)[:, None]
    targets_V = jnp.zeros(size).at[batch['target']].add(counts_BM, mode='drop')
    return {**accuracies(outputs, batch, weight_B), 'targets': targets_V}

  def hidden(state: TrainState, key: Any, batch: Batch) -> dict[str, Any]:
    del key
    batch = prepare(batch)
    outputs: Any = model.apply({'params': state.averaged}, batch['inputs'], train=False)
    best_BM = outputs['masked'][..., :size].argmax(-1)
    names = ('target', 'counts')
    shown = {name: batch[name] for name in names} | dict(batch['inputs'])
    return {**shown, 'best': best_BM}

  first = AllSegments(data.validation, SHOWN)
  experiment = supervised(
    config,
    model=model,
    inputs='inputs',
    prepare=prepare,
    loss=loss,
    tx=tx,
    train_data=Segments(data.train, config.batch_size, config.seed),
    eval_data={'validation': AllSegments(data.validation, config.eval_batch_size)},
    metrics=sums,
    train_metrics=accuracies,
    summarize=summarize,
    declared=declarations(size, pairs),
    headline=(
      *('validation/masked', 'validation/gain'),
      *(('validation/next_accuracy',) * pairs),
    ),
    functions=_functions(config, data, model),
    figures={
      'hidden': Figure(
        lambda tree: told(tree, data.vocabulary(None)), compute=hidden, data=first
      )
    },
    placement=PLACEMENT,
    flops_per_step=config.batch_size
    * flops_per_row(model, length, masking.most_hidden(length, share)),
  )
  return with_tokenizer(experiment, data)


def with_tokenizer(experiment: Experiment, data: Corpus) -> Experiment:
  """The experiment, whose state holds the merges of its byte pairs.

  `--init_from` hands them over with the parameters of `bert`: a run that begins with
  those of another and would cut texts into other tokens ends before step 0.

  Args:
    experiment: of a model whose encoder lies under `bert`.
    data: whose vocabulary it reads.
  """
  rows = data.vocabulary_size - LEAST_TOKENS

  def put(state: TrainState, merges_M2: Any) -> TrainState:
    kept = {'merges': jnp.asarray(merges_M2, jnp.int32)}
    return state._replace(model_state={**state.model_state, TOKENIZER: kept})

  def init(key):
    return put(experiment.init(key), jnp.full((rows, 2), NONE, jnp.int32))

  def warm_start(state: TrainState):
    coder = data.vocabulary(None)
    wanted_M2 = np.full((rows, 2), NONE, np.int32)
    merges = coder.coder.merges
    wanted_M2[: len(merges)] = np.array(merges, np.int32).reshape(-1, 2)
    held_M2 = np.asarray(state.model_state[TOKENIZER]['merges'])
    if (held_M2 != NONE).any() and (held_M2 != wanted_M2).any():
      raise ConfigError(
        f'The run that this one begins with reads other tokens than those learnt from '
        f'{data.name} here: give the corpus and the vocabulary_size of that run.'
      )
    origin = {'corpus': data.name, 'tokens': len(coder), 'merges': len(merges)}
    return put(state, wanted_M2), origin

  return experiment._replace(init=init, warm_start=warm_start)


def _functions(
  config: Config, data: Corpus, model: BertPretrainer
) -> dict[str, Function]:
  tokens = Field('tokens', ('length',), 'int32', vocabulary=data.vocabulary)
  room, size = model.bert.context - 2, data.vocabulary_size

  def reconstruct(state: TrainState, inputs: Batch) -> dict[str, Array]:
    """A row that holds what is no token gives -1 everywhere."""
    given_BL = inputs['tokens']
    token_BT, segment_BT = masking.single(given_BL[:, :room])
    place_T = jnp.arange(token_BT.shape[1], dtype=jnp.int32)
    asked = {
      'token': token_BT,
      'segment': segment_BT,
      'position': jnp.broadcast_to(place_T[None], token_BT.shape),
    }
    outputs: Any = model.apply({'params': state.averaged}, asked, train=False)
    # Marks stand in no text.
    best_BT = len(MARKS) + outputs['masked'][..., len(MARKS) : size].argmax(-1)
    filled_BT = jnp.where(token_BT == HIDDEN, best_BT, token_BT)[:, 1:-1]
    filled_BL = jnp.concatenate([filled_BT, given_BL[:, room:]], 1)
    # Of rows without padding; the end of others was put where padding began.
    filled_BL = jnp.where(given_BL == PAD, PAD, filled_BL)
    known_B = labels.is_index(given_BL, size).all(1)[:, None]
    return {'tokens': jnp.where(known_B, filled_BL, -1).astype(jnp.int32)}

  def encode(state: TrainState, inputs: Batch) -> dict[str, Array]:
    token_BT, segment_BT = masking.single(inputs['tokens'][:, :room])
    params = {'params': state.averaged['bert']}
    found: Any = model.bert.apply(params, token_BT, segment_BT, train=False)
    wide = jnp.promote_types(found.pooled_BD.dtype, jnp.float32)
    return {'features': found.pooled_BD.astype(wide)}

  width = (model.bert.block.width,)
  return {
    'reconstruct': Function(reconstruct, {'tokens': tokens}, {'tokens': tokens}),
    'encode': Function(
      encode,
      {'tokens': tokens._replace(pad=PAD)},
      {'features': Field('features', width, 'float32')},
    ),
  }


def told(tree: Mapping[str, Any], coder: Marked) -> Any:
  """Texts with what was hidden, and what the model took it for: [was|guess]."""
  shown = []
  for row in range(len(tree['token'])):
    hidden = {
      int(at): (int(was), int(best))
      for at, was, best, counts in zip(
        *(tree[name][row] for name in ('position', 'target', 'best', 'counts'))
      )
      if counts
    }
    parts = []
    for place, token in enumerate(tree['token'][row]):
      if place in hidden:
        was, best = (coder.decode([x]) for x in hidden[place])
        parts.append(f'[{was}|{best}]' if was != best else f'[{was}]')
      elif token == END:
        parts.append(' / ')
      else:
        parts.append(coder.decode([token]))
    shown.append(''.join(parts))
  return text.text_samples(shown, [''] * len(shown))


def _of_row(values_BM: Array, batch: Batch) -> Array:
  """Mean over the hidden tokens of each row; 0 of a row without any."""
  counts_BM = batch['counts']
  total_B = jnp.where(counts_BM > 0, values_BM, 0).sum(1)
  return total_B / jnp.maximum(counts_BM.sum(1), 1)


def summarize(sums: Metrics) -> Mapping[str, Any]:
  """Every mean; of `targets`, the count of each token, `unigram` and `gain`."""
  found = dict(ratios(sums))
  targets_V = found.pop('targets')
  share_V = targets_V / targets_V.sum()
  found['unigram'] = -jax.scipy.special.xlogy(share_V, share_V).sum()
  found['gain'] = found['unigram'] - found['masked']
  return found
