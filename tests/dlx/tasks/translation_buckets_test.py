"""Pairs of like length together: shapes, losses, programs and what is refused."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.batches.buckets import Bucketed
from dlx.data.batches.resident import Shuffled
from dlx.data.prepare import pairs
from dlx.data.sets.translation import translation as pair_data
from dlx.data.text.vocabulary import PAD
from dlx.errors import ConfigError
from dlx.models.seq2seq import flops_per_pair
from dlx.models.seq2seq_config import Seq2SeqConfig
from experiments.sequences import translation
from experiments.transformers import transformer

SMALL = {
  translation: {'net': Seq2SeqConfig(features=8, embedding=8)},
  transformer: {'width': 8, 'num_layers': 1, 'num_heads': 2, 'unroll': 1},
}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
  """A set of pairs, of 4 or 10 tokens with the end."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')
  text = lambda i, n: ' '.join([f'w{i}'] + ['x'] * (n - 1))
  lines = [f'{text(i, 3)}\t{text(i, 9 if i % 2 else 3)}\n' for i in range(40)]
  pathlib.Path('own.tsv').write_text('a\tb\n' + ''.join(lines))
  pairs.prepare(['own.tsv'], 'own')


def build(module, **fields):
  small = {'dataset': 'own', 'batch_size': 4, 'num_steps': 8, 'bleu': ()}
  return module.build(module.Config(**{**small, **SMALL[module], **fields}))


@pytest.mark.parametrize('module', SMALL)
def test_a_row_has_the_loss_that_it_has_in_a_longer_batch(module):
  built = build(module)
  train = built.train_data
  assert isinstance(train, Bucketed) and train.lengths == (4, 10)
  state = jax.jit(built.init)(jax.random.key(0))
  arrays = jax.tree.map(jnp.asarray, train.load().data)
  step = next(step for step in range(9) if train.shape_id(step) == 0)
  batch = jax.tree.map(np.array, train.get(arrays, jnp.int32(step), shape_id=0))
  assert batch['source'].shape == batch['target'].shape == (4, 4)
  filled = {
    k: np.pad(x, ((0, 0), (0, 6)), constant_values=PAD) for k, x in batch.items()
  }
  score = jax.jit(built.functions['score'].call)
  losses = [
    score(state, {'source': x['source'], 'target': x['target']})['log_likelihood']
    for x in (batch, filled)
  ]
  np.testing.assert_allclose(*losses, rtol=1e-6)


def test_one_program_a_bucket():
  built = build(translation)
  traced = []

  @jax.jit
  def step(state, batch):
    traced.append(batch['source'].shape)
    return built.train_step(state, batch)[0]

  state, train = jax.jit(built.init)(jax.random.key(0)), built.train_data
  arrays = jax.tree.map(jnp.asarray, train.load().data)
  shapes = []
  for i in range(2 * train.steps_per_epoch):
    shape = train.shape_id(i)
    state = step(state, train.get(arrays, jnp.int32(i), shape_id=shape))
    shapes.append((4, train.lengths[shape]))
  assert len(shapes) > len(traced) == 2 and set(shapes) == set(traced)


def test_operations_of_a_step_are_the_mean_of_an_epoch():
  built, data = build(translation), pair_data('own')
  train = built.train_data
  model = SMALL[translation]['net'].module(data.vocabulary_size)
  lengths = [
    train.lengths[train.shape_id(step)] for step in range(train.steps_per_epoch)
  ]
  wanted = np.mean([4 * flops_per_pair(model, n, n) for n in lengths])
  assert set(lengths) == {4, 10}
  assert built.flops_per_step == pytest.approx(wanted)


def test_one_length_where_none_is_known_or_asked():
  for fields in ({'stream': True}, {'validation': 0.2}, {'bucket_lengths': (10,)}):
    assert not isinstance(build(translation, **fields).train_data, Bucketed)
  assert isinstance(build(translation, bucket_lengths=(10,)).train_data, Shuffled)
  assert not isinstance(build(translation, dataset='phrases').train_data, Bucketed)
  cut = build(translation, max_length=7).train_data
  assert isinstance(cut, Bucketed) and cut.lengths == (4, 7)


@pytest.mark.parametrize(
  ('fields', 'message'),
  (
    ({'stream': True}, r'\(4, 10\) is not allowed: batches of --config.stream=True'),
    ({'validation': 0.2}, 'of what --config.validation=0.2 leaves none is known'),
    (
      {'dataset': 'reverse', 'bucket_lengths': (4, 11)},
      'those of reverse are not known',
    ),
    ({'bucket_lengths': (4, 8)}, 'the last must be 10, or set --config.max_length=8'),
    ({'bucket_lengths': (10, 4, 10)}, 'must be one or more rising numbers'),
    ({'bucket_lengths': (4, 6, 10)}, 'no sentence belongs to the bucket of 6'),
  ),
)
def test_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    build(translation, **{'bucket_lengths': (4, 10), **fields})
