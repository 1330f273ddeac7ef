"""Drawn pairs against their definitions; a trained translator against BLEU of texts."""

import json

import jax
import numpy as np
import pytest

import dlx
from dlx import metrics
from dlx.data.sets import phrases
from dlx.data.text.vocabulary import tokenise
from dlx.errors import ConfigError
from experiments.sequences import seq2seq_addition, seq2seq_reverse, translation
from launch import train
from tests import turns


def texts(tokens, rows):
  words = tokens.vocabulary()
  return [words.decode([x for x in row if x != tokens.end]) for row in rows.tolist()]


def batches(experiment, name, count=1):
  """Some batches of a split, or of training."""
  data = experiment.evals[name].data if name in experiment.evals else None
  data = data or experiment.train_data
  get = jax.jit(lambda i: data.get({}, i))
  found = [jax.tree.map(np.asarray, dict(get(i))) for i in range(count)]
  return {k: np.concatenate([x[k] for x in found]) for k in found[0]}


def test_questions_and_answers_of_additions():
  config = seq2seq_addition.Config(first_digits=1, digits=2, eval_batch_size=500)
  built = seq2seq_addition.build(config)
  tokens = seq2seq_addition.Symbols('0123456789+', (4, 4))
  seen = {}
  for name, count in (('train', 100), ('test', 2)):
    found = batches(built, name, count)
    asked, wanted = (texts(tokens, found[side]) for side in ('source', 'target'))
    pairs = [tuple(map(int, question.split('+'))) for question in asked]
    assert [f'{a}+{b}' for a, b in pairs] == asked  # No leading zeros.
    assert [str(a + b) for a, b in pairs] == wanted
    assert ((found['target'] == tokens.end).sum(1) == 1).all()
    assert found['source'].shape[1] == 4 == found['target'].shape[1]
    seen[name] = set(pairs)
  # All of the 1000 pairs of numbers, each on one side.
  assert len(seen['test']) == 100 and len(seen['train']) == 900
  assert seen['test'].isdisjoint(seen['train'])


@pytest.mark.parametrize('reverse', [True, False])
def test_strings_and_their_reverse(reverse):
  config = seq2seq_reverse.Config(length=10, symbols=3, reverse=reverse)
  built = seq2seq_reverse.build(config)
  tokens = seq2seq_reverse.Symbols('abc', (10, 11))
  lengths = {}
  for name in ('train', 'test', 'test_short'):
    found = batches(built, name, 4)
    given, wanted = (texts(tokens, found[side]) for side in ('source', 'target'))
    assert wanted == [x[::-1] if reverse else x for x in given]
    assert set(''.join(given)) == set('abc')
    ends_N = np.argmax(found['target'] == tokens.end, 1)
    lengths[name] = set(map(len, given))
    np.testing.assert_array_equal(ends_N, [*map(len, given)])
  wanted = {'train': {*range(1, 11)}, 'test': {10}, 'test_short': {2}}
  assert lengths == wanted


@pytest.mark.usefixtures('optimised')
@turns.seldom(1, 3)
def test_bleu_of_a_run_is_that_of_its_texts(tmp_path):
  fields = {
    **{'num_steps': 150, 'lr': 1e-2, 'batch_size': 32, 'eval_every_steps': 'none'},
    **{'bleu': '1,3', 'net.embedding': 32, 'net.features': 32},
  }
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  workdir = tmp_path / 'run'
  args = ['train', '--exp=translation', f'--workdir={workdir}', *flags]
  assert train.main(args) == 0
  found = json.loads((workdir / 'result.json').read_text())['metrics']
  run, pairs = dlx.open(workdir), phrases.read('test').data
  wanted = [[' '.join(tokenise(text, True))] for text in pairs['target']]
  for name, beams in (('test_greedy', 1), ('test_beam_3', 3)):
    written = run.translate(source=pairs['source'], beams=beams)
    bleu = metrics.corpus_bleu(written, wanted)
    assert 0.3 < bleu
    np.testing.assert_allclose(found[f'{name}/bleu'], bleu, rtol=1e-4)
  weights = run.align(source='The dog sees a cat.', target='Der Hund sieht eine Katze.')
  assert weights.shape == (6, 6)
  np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize(
  ('config', 'fields', 'message'),
  [
    (seq2seq_addition.Config, {'digits': 9}, 'digits=9 is not allowed: must be at mos'),
    (seq2seq_addition.Config, {'validation': 0.1}, 'validation=0.1 is not allowed'),
    (seq2seq_reverse.Config, {'length': 4}, 'length=4 is not allowed: must be at lea'),
    (seq2seq_reverse.Config, {'symbols': 27}, 'symbols=27 is not allowed: must be in'),
    (translation.Config, {'bleu': (1, 1)}, r'bleu=\(1, 1\) is not allowed: must be nu'),
    (translation.Config, {'beams': 0}, 'beams=0 is not allowed: must be at least 1'),
  ],
)
def test_refused(config, fields, message):
  with pytest.raises(ConfigError, match=message):
    config(**fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'attention': 'luong'}, 'attention=luong is not allowed: must be one of none, b'),
    ({'features': 9}, 'features=9 is not allowed: must be even'),
    ({'attention': 'none', 'input_feeding': True}, 'input_feeding=True is not allowed'),
    ({'cell': 'gpu'}, 'cell=gpu is not allowed'),
    ({'dropout': 1.0}, 'dropout=1.0 is not allowed'),
  ],
)
def test_nets_that_are_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    seq2seq_reverse.Seq2SeqConfig(**fields)


if __name__ == '__main__':
  pytest.main([__file__])
