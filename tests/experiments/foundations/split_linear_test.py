"""Sizes of split nets, and of the dense nets beside them."""

import dataclasses

import jax
import pytest

from experiments.foundations import hidden_blocks, split_linear


@pytest.mark.parametrize('parts', [1, 2, 4])
def test_parameters_are_those_of_the_net(parts):
  block = ('split', 'activation', 'shuffle') if parts > 1 else ('dense', 'activation')
  config = dataclasses.replace(
    hidden_blocks.SMALL, depth=3, width=16, block=block, split=parts
  )
  built = hidden_blocks.build(config)
  params = jax.eval_shape(built.init, jax.random.key(0)).params
  count = sum(x.size for x in jax.tree.leaves(params))
  assert split_linear.parameters(64, 16, 3, 10, parts) == count


def test_by_hand():
  # 64 x 16 + 16, twice 16 x 16 + 16, 16 x 10 + 10.
  assert split_linear.parameters(64, 16, 3, 10) == 1040 + 2 * 272 + 170
  # In four parts: 16 x 4 + 4, twice 4 x 4 + 4; the head is whole.
  assert split_linear.parameters(64, 16, 3, 10, 4) == 68 + 2 * 20 + 170


def test_a_narrow_net_fills_the_budget():
  budget = split_linear.parameters(64, 256, 3, 10, 4)
  width = split_linear.widest(budget, 64, 3, 10)
  sizes = [split_linear.parameters(64, w, 3, 10) for w in (width, width + 1)]
  assert sizes[0] <= budget < sizes[1]
  assert split_linear.widest(1, 64, 3, 10) == 1


def test_every_split_net_has_a_dense_one_beside_it():
  study = split_linear.study(split_linear.Config(parts=(2, 8)))
  nets = {run.group.partition('@')[0] for run in study.runs.values()}
  assert {'dense-256', 'split-2', 'shuffled-2', 'split-8', 'shuffled-8'} < nets
  assert len(nets) == 7
