"""Texts in rows: by hand, first fit by its definition, and as alone in a GPT."""

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.text import packed as lib
from dlx.errors import ConfigError, DataError
from dlx.layers.attention.multihead import segment_mask, segment_positions
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT


def test_by_hand():
  found = lib.pack([[5, 6, 7], [1, 2, 3], [8], [4, 4], [9]], 5)
  np.testing.assert_array_equal(
    found.token_RL, [[5, 6, 7, 8, 9], [1, 2, 3, 4, 4]]
  )  # fmt: skip
  np.testing.assert_array_equal(found.segment_RL, [[1, 1, 1, 2, 3], [1, 1, 1, 2, 2]])
  np.testing.assert_array_equal(found.position_RL, [[0, 1, 2, 0, 0], [0, 1, 2, 0, 1]])
  assert found.padding == 0
  found = lib.pack([[5, 6], [1, 2, 3]], 4)
  np.testing.assert_array_equal(found.token_RL, [[5, 6, 0, 0], [1, 2, 3, 0]])
  np.testing.assert_array_equal(found.position_RL, [[0, 1, 0, 1], [0, 1, 2, 0]])
  assert found.padding == 3 / 8
  target_RL, weight_RL = lib.pack([[5, 6], [8, 9], [1, 2, 3]], 4).targets()
  np.testing.assert_array_equal(target_RL[:, :3], [[6, 8, 9], [2, 3, 0]])
  np.testing.assert_array_equal(weight_RL, [[1, 0, 1, 0], [1, 1, 0, 0]])
  # Padding that is followed by padding has no target.
  np.testing.assert_array_equal(lib.pack([[5, 6]], 5).targets()[1], [[1, 0, 0, 0, 0]])
  assert lib.pack([], 4).token_RL.shape == (0, 4) and lib.pack([], 4).padding == 0


@hypothesis.given(
  strategies.lists(strategies.integers(1, 9), max_size=40), strategies.integers(9, 20)
)
def test_every_text_is_in_the_first_row_with_room(lengths, length):
  texts = [list(range(1, n + 1)) for n in lengths]
  found = lib.pack(texts, length)
  room: list[int] = []
  for n, row, start in zip(lengths, found.row_N, found.start_N, strict=True):
    wanted = next((r for r, left in enumerate(room) if left >= n), len(room))
    room += [length] * (wanted == len(room))
    assert (row, start) == (wanted, length - room[wanted])
    room[wanted] -= n
  assert len(found.token_RL) == len(room)
  # Nothing is lost, and positions count from 0 in each text.
  for text, one, place in zip(
    texts, found.texts(found.token_RL), found.texts(found.position_RL), strict=True
  ):
    assert one.tolist() == text
    assert place.tolist() == list(range(len(text)))
  assert (found.segment_RL > 0).sum() == sum(lengths)


def test_segments_tell_positions_and_what_is_seen():
  found = lib.pack([[5, 6, 7], [1, 2], [3, 3, 3], [4]], 6)
  segment_RL = jnp.asarray(found.segment_RL)
  np.testing.assert_array_equal(segment_positions(segment_RL), found.position_RL)
  sees = np.asarray(segment_mask(segment_RL))[0, 0].astype(int)
  wanted = np.kron(np.eye(2, dtype=int), np.ones((3, 3), int))
  wanted[3:5, 5] = wanted[5, 3:5] = 0  # The third text has one token.
  np.testing.assert_array_equal(sees, wanted)


def test_refuses():
  with pytest.raises(DataError, match='Text 1 has 4 tokens: must have 1 to length=3'):
    lib.pack([[1], [1, 2, 3, 4]], 3)
  with pytest.raises(DataError, match='Text 0 has 0 tokens'):
    lib.pack([[]], 3)
  with pytest.raises(ConfigError, match='length=0 is not allowed'):
    lib.pack([], 0)


@pytest.mark.parametrize('positions', ('learned', 'rotary'))
def test_a_packed_row_gives_each_text_what_it_gets_alone(positions):
  block = BlockConfig(width=16, num_heads=2)
  net = GPT(11, 12, num_layers=2, block=block, positions=positions, init_scale=0.3)
  rng = np.random.default_rng(0)
  texts = [rng.integers(1, 11, n).tolist() for n in (5, 7, 4, 3, 1)]
  found = lib.pack(texts, 12)
  assert len(found.token_RL) == 2
  token_BT, segment_BT = jnp.asarray(found.token_RL), jnp.asarray(found.segment_RL)
  params = jax.jit(lambda: net.init(jax.random.key(0), token_BT, train=False))()
  run = jax.jit(lambda x, s: net.apply(params, x, train=False, segment_BT=s))
  logits = np.asarray(run(token_BT, segment_BT))
  # Alone at the beginning of a row, of which a causal net sees nothing later.
  alone = [np.pad(text, (0, 12 - len(text)))[None] for text in texts]
  plain = jax.jit(lambda x: net.apply(params, x, train=False))
  for text, row, one in zip(texts, alone, found.texts(logits), strict=True):
    wanted = np.asarray(plain(jnp.asarray(row)))[0, : len(text)]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(one, wanted, rtol=0, atol=2e-6 * scale)
  # Without segments a text sees what stands before it.
  mixed = found.texts(np.asarray(plain(token_BT)))
  assert all(
    (np.abs(a - b).max() > 0.1) == (start > 0)
    for a, b, start in zip(mixed, found.texts(logits), found.start_N, strict=True)
  )
