"""What every encoder-decoder over pairs of texts shares: data, metrics, translations.

An experiment gives the pairs, the model and the optimiser.
"""

import functools
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import optax

from dlx import metrics
from dlx.data.batches.buckets import Bucketed
from dlx.data.batches.choose import splits
from dlx.data.batches.generated import generated
from dlx.data.batches.resident import InOrder
from dlx.data.dataset import Dataset
from dlx.data.sets.translation import SIDES, PairData
from dlx.data.text.vocabulary import PAD, UNKNOWN
from dlx.errors import ConfigError
from dlx.experiment import (
  LEARNT,
  Config,
  Eval,
  Experiment,
  Field,
  Figure,
  Function,
  Overfit,
)
from dlx.figures import text
from dlx.sampling.beam import beam_search
from dlx.state import Array, TrainState
from dlx.tasks.targets import (
  Tokens,
  as_pair,
  bleu_declaration,
  declarations,
  summarize,
  target_loss,
  target_metrics,
  with_end,
)
from dlx.train.supervised import make_predict, supervised

NUM_SHOWN = 8  # Pairs of the figure of translations.
TEST_SIZE, TEST_SEED = 1000, 2**32 - 1  # Of generated pairs; a seed that no run has.


class Pairs(NamedTuple):
  """Pairs in batches: `source` int32 [B, S] and `target` int32 [B, T] with its end.

  Attributes:
    train: an endless stream.
    passes: those of evaluation, by split.
    shown: its first batch is shown in figures.
    translated: whose sources are translated for BLEU.
  """

  train: Dataset
  passes: Mapping[str, Dataset]
  shown: Dataset
  translated: Dataset


Draw = Callable[[Array], Mapping[str, Array]]


def generated_pairs(
  config: Config, name: str, train: Draw, tests: Mapping[str, Draw]
) -> Pairs:
  """Pairs that functions draw from a key, anew at every step of training.

  Args:
    config: of the run.
    name: of the task.
    train: key -> `source` int32 [S] and `target` int32 [T] with its end.
    tests: likewise, by split; of each TEST_SIZE are drawn, the same in every run. The
      first is shown and translated.
  """
  test = lambda draw, batch, size: generated(
    draw, batch, TEST_SEED, size=size, name=name
  )
  passes = {k: test(x, config.eval_batch_size, TEST_SIZE) for k, x in tests.items()}
  first = next(iter(tests))
  return Pairs(
    train=generated(train, config.batch_size, config.seed, name=name),
    passes=passes,
    shown=test(tests[first], NUM_SHOWN, NUM_SHOWN),
    translated=passes[first],
  )


class Architecture(NamedTuple):
  """A model of pairs, and the functions of its module that a task needs.

  Attributes:
    model: with the methods of `EncoderDecoder`: of a `pair` the logits, `start`,
      `extend`, `cross_attention`.
    take: some rows of what `start` gives, see `beam_search`.
    flops_per_pair: (model, S, T) -> operations of a training step over a pair.
    placement: see `Experiment`.
    attends: whether there is a `cross_attention`.
  """

  model: nn.Module
  take: Callable[[Any, Array], Any]
  flops_per_pair: Callable[[Any, int, int], float]
  placement: tuple[tuple[str, P], ...] = ()
  attends: bool = True


def translation(
  config: Config,
  data: PairData,
  architecture: Architecture,
  *,
  tx: optax.GradientTransformation,
  label_smoothing: float = 0.0,
  beams: int = 1,
  length_penalty: float = 0.6,
  bleu: Sequence[int] = (),
  bucket_lengths: Sequence[int] = (),
  figures: Mapping[str, Figure] | None = None,
  overfit: Overfit | str | None = LEARNT,
) -> Experiment:
  """`of_pairs` of a set of pairs by name, with the splits that it has.

  Args:
    bucket_lengths: tokens of the longer side of the pairs of a batch, rising, the last
      those of the longest pair; none: those of the set, or one of all where it has
      none, where it is streamed and where a split is held out.

  Raises:
    ConfigError: lengths that the set or the run cannot have.
  """
  train, passes = splits(data.train, data.test, config)
  train = _bucketed(config, data, bucket_lengths) or train
  return of_pairs(
    config,
    data,
    Pairs(train, passes, InOrder(data.test, NUM_SHOWN), passes['test']),
    architecture,
    tx=tx,
    label_smoothing=label_smoothing,
    beams=beams,
    length_penalty=length_penalty,
    bleu=bleu,
    figures=figures,
    overfit=overfit,
  )


def _bucketed(config: Config, data: PairData, asked: Sequence[int]) -> Bucketed | None:
  """Training pairs of like length together; None: as they come."""
  lengths, last = tuple(asked) or data.bucket_lengths, max(data.lengths)
  refused = f'bucket_lengths={lengths} is not allowed'
  if lengths and lengths[-1] != last:
    raise ConfigError(
      f'{refused}: the last must be {last}, or set --config.max_length={lengths[-1]}.'
    )
  if len(lengths) < 2:
    return None
  why = None
  if config.stream:
    why = 'batches of --config.stream=True have one length'
  elif config.validation:
    why = f'of what --config.validation={config.validation} leaves none is known'
  elif data.length_counts is None:
    why = f'those of {data.name} are not known; a set of yours is to be prepared again'
  if why or data.length_counts is None:
    if asked:
      raise ConfigError(f'{refused}: {why}.')
    return None
  return Bucketed(
    data.train,
    data.length_counts,
    lengths=lengths,
    batch_size=config.batch_size,
    seed=config.seed,
    fields=SIDES,
  )


def of_pairs(
  config: Config,
  data: Tokens,
  pairs: Pairs,
  architecture: Architecture,
  *,
  tx: optax.GradientTransformation,
  label_smoothing: float = 0.0,
  beams: int = 1,
  length_penalty: float = 0.6,
  bleu: Sequence[int] = (),
  figures: Mapping[str, Figure] | None = None,
  overfit: Overfit | str | None = LEARNT,
) -> Experiment:
  """Targets token by token from sources, with translations by greedy or beam search.

  Functions: `translate`, the target that the model writes for a source, with the
  options `num_tokens` (most tokens, the end included), `beams` (1: greedy) and
  `length_penalty` (see `beam_search`); `score`, the log-likelihood of a target;
  `align`, how much the model looks at each token of the source when it writes each of
  a target, the mean over layers and heads.

  The splits report `loss` (nats a token), `perplexity`, `accuracy` and `exact`. A token
  counts the same in whichever pair it stands; `exact` is of pairs. At the end of the
  run `pairs.translated` is translated with each number of beams that `bleu` names, and
  `test_greedy` (1) or `test_beam_K` reports `bleu`. Of a vocabulary of words it is what
  sacrebleu gives for the words as they are set apart here, in lower case, see
  `metrics.token_bleu_sums`; of characters or byte pairs it is of these, and higher.

  Args:
    config: see `supervised`.
    data: what the tokens are.
    pairs: the batches.
    architecture: of `data.vocabulary_size` tokens.
    tx: the optimiser.
    label_smoothing: of the training loss, see `losses.softmax_cross_entropy`.
    beams: of `translate`, where it is not asked for others.
    length_penalty: likewise.
    bleu: numbers of beams, see above.
    figures: besides `translations` and `attention`.
    overfit: see `Experiment`.
  """
  model = architecture.model

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
      architecture.take,
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

  def looks(state, batch):
    """Weights [N, B, H, T, S] of writing the targets."""
    pair = as_pair({k: batch[k] for k in ('source', 'target')})['pair']
    variables = {'params': state.averaged}
    found: Any = model.apply(variables, pair, method='cross_attention')
    return found

  def align(state, inputs):
    weights_BTS = looks(state, inputs).mean((0, 2))
    real_BT = inputs['target'] != PAD
    return {'weights': jnp.where(real_BT[:, :, None], weights_BTS, 0)}

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
  if architecture.attends:
    # Without padding, since the weights have the shape of what is given.
    exact = tokens._replace(pad=None)
    functions['align'] = Function(
      align,
      {
        'source': exact._replace(shape=('source_length',)),
        'target': exact._replace(shape=('target_length',)),
      },
      {'weights': Field('row', ('target_length', 'source_length'), 'float32')},
    )

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
    found = looks(state, {k: batch[k][:1] for k in ('source', 'target')})
    return {**{k: batch[k][0] for k in ('source', 'target')}, 'weights': found[:, 0]}

  def draw_attention(tree):
    words = data.vocabulary(None)
    source, target = (tree[k][tree[k] != PAD] for k in ('source', 'target'))
    name = lambda token: 'end' if token == data.end else words.decode([token])
    weights_NHTS = tree['weights'][:, :, : len(target), : len(source)]
    return text.attention_maps(
      weights_NHTS, [*map(name, target)], keys=[*map(name, source)]
    )

  def bleu_sums(state, batch, *, beams):
    found = translate(state, {'source': batch['source']}, beams=beams)['target']
    target_BT = batch['target']
    return metrics.token_bleu_sums(
      found,
      jnp.where(target_BT == data.end, PAD, target_BT),
      batch['weight'],
      fill=PAD,
      unknown=UNKNOWN if data.unit == 'word' else None,
    )

  evaluations = {
    'test_greedy' if k == 1 else f'test_beam_{k}': Eval(
      functools.partial(bleu_sums, beams=k),
      pairs.translated,
      every=config.num_steps,
      summarize=lambda sums: {'bleu': metrics.token_bleu(sums)},
    )
    for k in bleu
  }
  drawn = {'translations': Figure(draw_written, compute=written, data=pairs.shown)}
  if architecture.attends:
    drawn['attention'] = Figure(draw_attention, compute=attention, data=pairs.shown)
  flops = functools.partial(architecture.flops_per_pair, model)
  if isinstance(pairs.train, Bucketed):
    steps = zip(pairs.train.lengths, pairs.train.steps)
    of_epoch = sum(n * flops(length, length) for length, n in steps)
    of_pair = of_epoch / pairs.train.steps_per_epoch
  else:
    of_pair = flops(*data.lengths)
  declared = declarations(data)
  if bleu:
    declared['bleu'] = bleu_declaration(data.unit)
  built = supervised(
    config,
    model=model,
    inputs='pair',
    prepare=as_pair,
    loss=functools.partial(target_loss, label_smoothing=label_smoothing),
    eval_loss=target_loss,
    tx=tx,
    train_data=pairs.train,
    eval_data=pairs.passes,
    metrics=target_metrics,
    summarize=summarize,
    declared=declared,
    headline=(*(f'{name}/bleu' for name in evaluations), 'test/exact', 'test/loss'),
    functions=functions,
    figures={**drawn, **(figures or {})},
    overfit=overfit,
    placement=architecture.placement,
    flops_per_step=config.batch_size * of_pair,
  )
  return built._replace(evals={**built.evals, **evaluations})
