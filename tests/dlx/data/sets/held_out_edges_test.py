"""Edges that are held out: counts, no leak, pairs that are joined nowhere."""

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from dlx.data.sets import graphs, held_out_edges, karate
from dlx.errors import ConfigError, DataError


def made(**fields):
  given = {'validation': 0.05, 'test': 0.1, 'seed': 0, **fields}
  return held_out_edges.held_out_edges(
    graphs.graph('karate_club', sparse=True), **given
  )


def rows(pairs):
  return {tuple(pair) for pair in np.asarray(pairs).tolist()}


class HeldOutEdgesTest(parameterized.TestCase):
  def test_every_edge_is_in_one_place_and_no_other_pair_is_an_edge(self):
    data = made()
    found = {k: x[0] for k, x in data.source.read(None).data.items()}
    shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in found.items()}
    self.assertEqual(shapes, data.source.shapes)
    whole = rows(karate.fields()['edges'])
    taken = [found['edges']]
    others = []
    for split, n in (('validation', 3), ('test', 7)):  # Of 78: 3.9 and 7.8.
      truth, pairs = found[f'{split}_truth'], found[f'{split}_pairs']
      self.assertEqual((truth.sum(), len(truth)), (n, 2 * n))
      taken.append(pairs[truth])
      others.append(pairs[~truth])
    self.assertEqual(sum(map(len, taken)), 78)
    self.assertEqual(set().union(*map(rows, taken)), whole)
    others = np.concatenate(others)
    self.assertLen(rows(others), len(others))
    self.assertFalse(rows(others) & whole)
    self.assertTrue((others[:, 0] < others[:, 1]).all())
    self.assertFalse(found['label'].any())  # Classes are not told.

  def test_a_seed_is_a_split(self):
    first, again, other = (made(seed=s).source.read(None).data for s in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    self.assertNotEqual(rows(first['edges'][0]), rows(other['edges'][0]))

  def test_pairs_run_out_in_a_full_graph(self):
    full = np.array([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)])
    found = held_out_edges.split_edges(full, 4, {'test': 1}, 0)
    np.testing.assert_array_equal(found['test_pairs'][1], [2, 3])
    with pytest.raises(DataError, match='1 pairs of nodes are not joined: 2 are'):
      held_out_edges.split_edges(full, 4, {'test': 2}, 0)

  @parameterized.parameters(
    ({'validation': 0.5, 'test': 0.5}, 'must leave an edge of 78'),
    ({'test': 0.0}, 'test_edges=0.0 .*above 0'),
    ({'validation': 1.5}, 'validation_edges=1.5 is not allowed with'),
  )
  def test_refuses(self, fields, why):
    with pytest.raises(ConfigError, match=why):
      made(**fields)
