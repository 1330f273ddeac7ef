"""Corpora: declared sizes, what follows what, tokens that are learnt; their batches."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.segments import AllSegments, Segments
from dlx.data.dataset import Loaded, Source
from dlx.data.sets import corpora
from dlx.data.sets.corpora import corpus, labelled
from dlx.data.sources import read
from dlx.errors import ConfigError, DataError


def small(name='grammar', **fields):
  return corpus(name, **{'vocabulary_size': 300, 'max_length': 12, **fields})


def documents(follows):
  n = len(follows)
  shapes = {
    'token': jax.ShapeDtypeStruct((2,), np.int32),
    'follows': jax.ShapeDtypeStruct((), np.bool_),
  }
  token = np.arange(2 * n, dtype=np.int32).reshape(n, 2) + 5
  load = lambda data_dir: Loaded(
    {'token': token, 'follows': np.array(follows)}, {'name': 'd', 'split': 'train'}
  )
  return Source('d', 'train', shapes, n, load)


class CorporaTest(parameterized.TestCase):
  @parameterized.parameters('grammar', 'pydoc', 'phrases')
  def test_splits_are_as_declared(self, name):
    data = small(name)
    for source in (data.train, data.validation):
      found = read(source)  # Compares sizes, shapes and dtypes.
      self.assertGreaterEqual(found.data['token'].min(), 0)
      self.assertLess(found.data['token'].max(), 300)
      self.assertTrue((found.data['token'][:, 0] >= 5).all())
    self.assertEqual(data.documents, name == 'pydoc')
    self.assertLen(data.vocabulary(None), 300)

  def test_lines_of_documents(self):
    lines = ['a b', 'c', '', 'd', '', 'e', 'f', 'g']
    spec = corpora._Read(lambda *_: (lines, {}), {}, documents=True)
    coder = small().vocabulary(None)
    one = corpora._tokens('x', spec, 'train', lambda _: coder, 4, 1, None).data
    self.assertEqual(one['follows'].tolist(), [1, 0, 0, 1, 1, 0])
    self.assertEqual(coder.decode(one['token'][2]), 'd')
    two = corpora._tokens('x', spec, 'train', lambda _: coder, 9, 2, None).data
    self.assertEqual([coder.decode(x) for x in two['token']], ['a b c', 'd e', 'f g'])
    self.assertEqual(two['follows'].tolist(), [0, 1, 0])
    with self.assertRaisesRegex(DataError, 'at least lines=7'):
      corpora._tokens('x', spec, 'train', lambda _: coder, 9, 7, None)

  @parameterized.parameters(
    ({'vocabulary_size': 260}, 'vocabulary_size=260 is not allowed'),
    ({'max_length': 0}, 'max_length=0 is not allowed'),
    ({'lines': 2}, 'lines=2 is not allowed'),
    ({'phrases': True}, 'phrases=True is not allowed'),
    ({'name': 'digits'}, "dataset='digits' holds"),
  )
  def test_refuses(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      small(**fields)

  def test_labelled_sentences_in_the_tokens_of_a_corpus(self):
    words = small()
    data = labelled('grammar', words, max_length=10)
    train, test = read(data.train).data, read(data.test).data
    self.assertEqual(train['tokens'].shape, (1600, 10))
    self.assertEqual(test['tokens'].shape, (400, 10))
    whole = read(words.train).data['token']
    np.testing.assert_array_equal(train['tokens'], whole[:, :10])

  def test_phrases_of_sst2(self):
    self.assertEqual(small('sst2', phrases=True).train.size, 67349)


class SegmentsTest(absltest.TestCase):
  def test_seconds_follow_in_half_of_the_cases_and_else_do_not(self):
    follows = [True, True, False, True, True, True, False]
    data = Segments(documents(follows), 700, 3)
    arrays = jax.tree.map(jnp.asarray, data.load().data)
    get = jax.jit(data.get)
    batch = jax.tree.map(np.asarray, get(arrays, jnp.int32(2)))
    first, other = (batch[name][:, 0] // 2 - 2 for name in ('token', 'other'))
    asked = np.array(follows)[first]
    np.testing.assert_array_equal(batch['asked'], asked)
    np.testing.assert_array_equal(batch['next'], (other - first) == 1)
    self.assertFalse((other == first).any())
    self.assertFalse(batch['next'][~asked].any())
    # Of 500 pairs half, with a deviation of 0.022.
    self.assertAlmostEqual(batch['next'][asked].mean(), 0.5, delta=0.1)
    again = get(arrays, jnp.int32(2))
    np.testing.assert_array_equal(again['seed'], batch['seed'])
    later = get(arrays, jnp.int32(3))
    self.assertFalse((np.asarray(later['seed']) == batch['seed']).any())

  def test_a_pass_depends_on_the_number_alone(self):
    source = documents([True, True, False, True, False])
    whole, parts = AllSegments(source, 5), AllSegments(source, 2)
    arrays = jax.tree.map(jnp.asarray, whole.load().data)
    once = whole.get(arrays, jnp.int32(0))
    pieces = [parts.get(arrays, jnp.int32(i)) for i in range(3)]
    for name in ('token', 'other', 'next', 'seed'):
      joined = np.concatenate([piece[name] for piece in pieces])[:5]
      np.testing.assert_array_equal(joined, once[name])
    self.assertEqual(float(pieces[2]['weight'].sum()), 1)

  def test_refuses_two_texts(self):
    with self.assertRaisesRegex(DataError, 'at least 3'):
      Segments(documents([True, False]), 2, 0).load()


if __name__ == '__main__':
  absltest.main()
