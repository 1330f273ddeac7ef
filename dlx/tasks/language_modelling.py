"""What every model of a text as tokens shares: data, metrics, samples, figures.

An experiment gives the text, the model and the optimiser.
"""

import functools
import math
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import labels, losses, metrics
from dlx.data.batches.windows import AllWindows, Windows
from dlx.data.sets.characters import CharacterData
from dlx.errors import ConfigError
from dlx.experiment import LEARNT, Config, Experiment, Field, Figure, Function, Overfit
from dlx.figures import text
from dlx.layers import mesh
from dlx.models.gpt import GPT, PLACEMENT, flops_per_token
from dlx.sampling.autoregressive import generate
from dlx.state import (
  Array,
  Batch,
  Metric,
  Metrics,
  PyTree,
  TrainState,
  ratios,
  seed_keys,
)
from dlx.train.supervised import make_predict, supervised

LANGUAGE_MODELLING: Mapping[str, Metric] = {
  'loss': Metric(
    'Loss',
    'lower',
    'Mean over the characters of the negative logarithm of the probability that the '
    'model gives to the next character.',
    'nats a character',
    'loss',
  ),
  'perplexity': Metric(
    'Perplexity',
    'lower',
    'Exponential of the loss: among so many equally likely characters the model is '
    'undecided.',
    '',
    'perplexity',
  ),
  'bits_per_character': Metric(
    'Bits a character',
    'lower',
    'The loss in bits: the length of the text after ideal compression by the model.',
    'bits',
    'bits',
  ),
  'accuracy': Metric(
    'Accuracy',
    'higher',
    'Share of the characters that are the likeliest next character.',
    '%',
    'share',
  ),
}


BITS_PER_BYTE = Metric(
  'Bits a byte',
  'lower',
  'The loss in bits over the bytes of a token, as UTF-8: the length of the text after '
  'ideal compression by the model, whatever its tokens are.',
  'bits',
  'bits',
)


def of_vocabulary(size: int) -> dict[str, Metric]:
  """LANGUAGE_MODELLING, with what so many equally likely characters would give."""
  chance = {
    'loss': math.log(size),
    'perplexity': float(size),
    'bits_per_character': math.log2(size),
    'accuracy': 1 / size,
  }
  return {k: m._replace(chance=chance[k]) for k, m in LANGUAGE_MODELLING.items()}


def declarations(data: CharacterData) -> dict[str, Metric]:
  """What a model of this text reports: of words and byte pairs, by those.

  Bits are told of characters, and of bytes where the bytes of a token are known: they
  can be compared over vocabularies; a loss a token cannot.
  """
  unit, found = data.vocabulary.unit, of_vocabulary(len(data.vocabulary))
  if unit == 'character':
    return found
  bits = found.pop('bits_per_character')
  named = {
    name: metric._replace(
      meaning=metric.meaning.replace('character', unit),
      unit=metric.unit.replace('character', unit),
    )
    for name, metric in found.items()
  }
  if data.bytes_per_token is not None:
    chance = (bits.chance or 0) / data.bytes_per_token
    named['bits_per_byte'] = BITS_PER_BYTE._replace(chance=chance)
  return named


NUM_SAMPLES, PROMPT_LENGTH, SHOWN_LENGTH = 2, 16, 24  # Of the figures; in tokens.


def language_model(
  config: Config,
  data: CharacterData,
  *,
  model: GPT,
  tx: optax.GradientTransformation,
  sample_length: int = 400,
  temperature: float = 1.0,
  top_k: int | None = None,
  figures: Mapping[str, Figure] | None = None,
  overfit: Overfit | str | None = LEARNT,
) -> Experiment:
  """Next-token prediction with loss over the whole validation text, and samples.

  Functions: `score`, the log-likelihood of a text, and `generate`, which goes on from a
  prompt; its options are `num_tokens`, and those of `choose`.

  The split `validation` reports `loss` (nats a token), `perplexity`, `accuracy` and
  `bits_per_character`, of byte pairs `bits_per_byte`, over every token but the first;
  each is predicted from those before it in its window.

  Args:
    config: see `supervised`.
    data: a text.
    model: its `context` is the length of the windows.
    tx: the optimiser.
    sample_length: tokens of each sample, generated with the cache.
    temperature: of the samples; 0: always the likeliest token.
    top_k: samples draw from this many tokens; None: all.
    figures: besides `sample` and `attention`.
    overfit: see `Experiment`.

  Raises:
    ConfigError: streamed data, or a `top_k` above the size of the vocabulary.
  """
  if config.stream:
    raise ConfigError(
      '--config.stream=True is not allowed: must be False; windows of a text are '
      'gathered on the device.'
    )
  declared, context = declarations(data), model.context

  def variables(state: TrainState) -> dict[str, Any]:
    return {'params': state.averaged}

  def extend(state, token_BT, cache):
    found: Any = model.apply(variables(state), token_BT, cache, method='extend')
    return found

  functions = text_functions(
    data,
    logits=make_predict(config, model, inputs='input', prepare=split_window),
    extend=extend,
    empty=model.empty_cache,
    context=context,
    sample_length=sample_length,
    temperature=temperature,
    top_k=top_k,
  )
  first = AllWindows(data.validation, NUM_SAMPLES, context)

  def attention(state, key, batch):
    del key
    token_BT = batch['token'][:1, : min(SHOWN_LENGTH, context)]
    weights = jnp.asarray(model.apply(variables(state), token_BT, method='attention'))
    return {'token': token_BT[0], 'weights': weights[:, 0]}

  def draw_attention(tree):
    tokens = [data.vocabulary.decode([token]) for token in tree['token']]
    return text.attention_maps(tree['weights'], tokens)

  return supervised(
    config,
    model=model,
    inputs='input',
    prepare=split_window,
    loss=next_token_loss,
    tx=tx,
    train_data=Windows(data.train, config.batch_size, context, config.seed),
    eval_data={
      'validation': AllWindows(data.validation, config.eval_batch_size, context)
    },
    metrics=next_token_accuracy,
    summarize=summary_of(data),
    declared=declared,
    headline=headline(data),
    functions=functions,
    figures={
      'sample': sample_figure(functions['generate'], data, first, temperature),
      'attention': Figure(draw_attention, compute=attention, data=first),
      **(figures or {}),
    },
    overfit=overfit,
    placement=PLACEMENT,
    flops_per_step=config.batch_size * context * flops_per_token(model, context),
  )


def text_functions(
  data: CharacterData,
  *,
  logits: Callable[[TrainState, Batch], Any],
  extend: Callable[[TrainState, Array, PyTree], tuple[Array, PyTree]],
  empty: Callable[[int], PyTree],
  context: int | None = None,
  sample_length: int = 400,
  temperature: float = 1.0,
  top_k: int | None = None,
) -> dict[str, Function]:
  """`score`, the log-likelihood of a text, and `generate`, which goes on from a prompt.

  Args:
    data: a text.
    logits: (state, {'token': [B, T + 1]}) -> those of the T tokens after the first.
    extend: (state, tokens, cache) -> (logits of the token after each, cache).
    empty: rows -> cache before the first token.
    context: most tokens that a cache holds: of a longer prompt the last ones; None:
      any number.
    sample_length, temperature, top_k: defaults of `generate`, see `language_model`.

  Raises:
    ConfigError: a `top_k` above the size of the vocabulary.
  """
  size = len(data.vocabulary)
  if top_k is not None and not 1 <= top_k <= size:
    raise ConfigError(
      f'--config.top_k={top_k} is not allowed: must be in [1, {size}], the size of the '
      'vocabulary, or None for off.'
    )
  chosen = {'top_k': top_k, 'top_p': None, 'min_p': None}

  def goes_on(state, inputs, *, num_tokens=sample_length, **given):
    """Tokens after each prompt."""
    prompt_BP = inputs['prompt']
    room = prompt_BP.shape[1] + max(1, num_tokens) if context is None else context
    prompt_BP = prompt_BP[:, -room:]
    new_BT = generate(
      lambda token_BT, cache: extend(state, token_BT, cache),
      empty(len(prompt_BP)),
      prompt_BP,
      num_tokens,
      seed_keys(inputs['seed']),
      context=room,
      temperature=inputs['temperature'],
      **{**chosen, **given},
    )
    return {'tokens': new_BT}

  def score(state, inputs):
    """Mean over the tokens after the first; at most one more than the context."""
    window = {'token': inputs['tokens']}
    nats_B = next_token_loss(logits(state, window), split_window(window))
    return {'log_likelihood': -nats_B}

  tokens = Field(
    'tokens', ('length',), 'int32', vocabulary=lambda data_dir: data.vocabulary
  )
  number = Field('number', (), 'float32')
  return {
    'score': Function(score, {'tokens': tokens}, {'log_likelihood': number}),
    'generate': Function(
      goes_on,
      {
        'prompt': tokens,
        'seed': Field('seed', (), 'uint32'),
        'temperature': number._replace(default=temperature),
      },
      {'tokens': tokens._replace(shape=('num_tokens',))},
      {'num_tokens': sample_length, **chosen},
    ),
  }


def sample_figure(
  generates: Function, data: CharacterData, windows: AllWindows, temperature: float
) -> Figure:
  """What the model writes after the first tokens of the windows, as text."""

  def sample(state, key, batch):
    prompt_BP = batch['token'][:, : min(PROMPT_LENGTH, windows.length)]
    n = len(prompt_BP)
    inputs = {
      'prompt': prompt_BP,
      'seed': jax.random.bits(key, (n,), jnp.uint32),
      'temperature': jnp.full((n,), temperature, jnp.float32),
    }
    return {'prompt': prompt_BP, 'new': generates.call(state, inputs)['tokens']}

  def draw(tree):
    read = lambda tokens_BT: [data.vocabulary.decode(row) for row in tokens_BT]
    return text.text_samples(read(tree['prompt']), read(tree['new']))

  return Figure(draw, compute=sample, data=windows)


def split_window(batch: Batch) -> Batch:
  """Adds `input` and `target`, [B, L] each, of windows `token` [B, L + 1]."""
  token_BW = batch['token']
  return {**batch, 'input': token_BW[:, :-1], 'target': token_BW[:, 1:]}


def next_token_loss(logits_BTV: Array, batch: Batch) -> Array:
  """Cross-entropy in nats a token: [B], the mean over the targets that count."""
  target_BT = batch['target']
  if mesh.size('sequence') > 1:  # Both axes are divided: merging them would gather.
    losses_BT = jax.vmap(losses.softmax_cross_entropy)(logits_BTV, target_BT)
  else:
    losses_N = losses.softmax_cross_entropy(
      logits_BTV.reshape(-1, logits_BTV.shape[-1]), target_BT.reshape(-1)
    )
    losses_BT = losses_N.reshape(target_BT.shape)
  return _of_window(losses_BT, batch)


def next_token_accuracy(logits_BTV: Array, batch: Batch, weight_B: Array) -> Metrics:
  """Share of the targets that count whose logit is the largest."""
  target_BT = batch['target']
  right_BT = (logits_BTV.argmax(2) == target_BT).astype(jnp.float32)
  known_BT = labels.is_index(target_BT, logits_BTV.shape[-1])
  right_BT = jnp.where(known_BT, right_BT, jnp.nan)
  return {'accuracy': metrics.mean(_of_window(right_BT, batch), weight_B)}


def summarize(
  sums: Metrics, bytes_per_token: float | None = None, unit: str = 'character'
) -> Mapping[str, Any]:
  """Every mean, and of the loss `perplexity` and bits a character or byte.

  Args:
    sums: of a pass.
    bytes_per_token: see `CharacterData`.
    unit: of the vocabulary.
  """
  found = dict(ratios(sums))
  found['perplexity'] = jnp.exp(found['loss'])
  bits = found['loss'] / np.log(2)
  if unit == 'character':
    found['bits_per_character'] = bits
  elif bytes_per_token is not None:
    found['bits_per_byte'] = bits / bytes_per_token
  return found


def summary_of(data: CharacterData) -> Callable[[Metrics], Mapping[str, Any]]:
  """`summarize` of this text."""
  return functools.partial(
    summarize, bytes_per_token=data.bytes_per_token, unit=data.vocabulary.unit
  )


def headline(data: CharacterData) -> tuple[str, ...]:
  """Loss, and bits where they are told, of the validation text."""
  bits = [name for name in declarations(data) if name.startswith('bits_per_')]
  return ('validation/loss', *(f'validation/{name}' for name in bits))


def _of_window(values_BT: Array, batch: Batch) -> Array:
  counts_BT = batch.get('counts', jnp.ones_like(values_BT))
  return (values_BT * counts_BT).sum(1) / counts_BT.sum(1)
