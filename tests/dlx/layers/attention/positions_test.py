"""Biases by distance, windows and the ring of a cache: by hand."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.attention.positions import alibi_bias, alibi_slopes, buckets, visible
from dlx.layers.attention.ring_cache import held, put_in_ring
from dlx.layers.block_config import BlockConfig, Relative


class AlibiTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, [2**-8]),
    (4, [2**-2, 2**-4, 2**-6, 2**-8]),
    (8, [2.0**-n for n in range(1, 9)]),
    # Two of a power of 2, then the first of four.
    (3, [2**-4, 2**-8, 2**-2]),
  )
  def test_slopes(self, num_heads, slopes):
    np.testing.assert_allclose(alibi_slopes(num_heads), slopes, rtol=1e-15)

  def test_bias_by_hand(self):
    bias = alibi_bias(jnp.asarray([2]), jnp.arange(4), 2)
    self.assertEqual(bias.shape, (1, 2, 1, 4))
    np.testing.assert_array_equal(bias[0, 0, 0] * 16, [-2, -1, 0, -1])
    np.testing.assert_array_equal(bias[0, 1, 0] * 256, [-2, -1, 0, -1])


class BucketsTest(parameterized.TestCase):
  def test_causal_by_hand(self):
    # 8 rows: 0 to 3; then from 4 * (64 / 4)^(j / 4) = 4, 8, 16, 32.
    distance = np.asarray([-5, 0, 1, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 1000])
    found = buckets(
      jnp.asarray(distance), jnp.zeros(1, int), Relative(8, 64), causal=True
    )
    rows = [0, 0, 1, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]
    np.testing.assert_array_equal(found[:, 0], rows)

  def test_both_ways_by_hand(self):
    # 4 rows a direction: 0, 1; then from 2 and from 2 * (8 / 2)^(1 / 2) = 4.
    key = jnp.asarray([-9, -4, -3, -1, 0, 1, 2, 4, 9])
    found = buckets(jnp.zeros(1, int), key, Relative(8, 8), causal=False)
    np.testing.assert_array_equal(found[0], [3, 3, 2, 1, 0, 5, 6, 7, 7])

  @parameterized.parameters(True, False)
  def test_formula_of_the_paper(self, causal):
    """T5's code: a logarithm cut to a whole number, here in float64."""
    distance = np.arange(1, 400)
    rows = 32 if causal else 16
    single = rows // 2
    log = np.log(np.maximum(distance, single) / single) / np.log(128 / single)
    far = np.minimum(single + np.floor(log * single + 1e-9), rows - 1).astype(int)
    want = np.where(distance < single, distance, far)
    found = buckets(jnp.asarray(distance), jnp.zeros(1, int), Relative(), causal=causal)
    np.testing.assert_array_equal(found[:, 0], want)
    back = buckets(jnp.zeros(1, int), jnp.asarray(distance), Relative(), causal=causal)
    np.testing.assert_array_equal(back[0], 0 if causal else 16 + want)


class VisibleTest(parameterized.TestCase):
  @parameterized.parameters(
    (True, 2, ['1000', '1100', '0110']),
    (False, 2, ['1100', '1110', '0111']),
    (True, None, ['1000', '1100', '1110']),
  )
  def test_by_hand(self, causal, window, rows):
    found = visible(jnp.arange(3), jnp.arange(4), causal=causal, window=window)
    want = np.asarray([[c == '1' for c in row] for row in rows])
    np.testing.assert_array_equal(found[0, 0], want)

  def test_no_key_is_hidden_and_all_is_none(self):
    key = jnp.asarray([-1, 0])
    found = visible(jnp.zeros(1, int), key, causal=True, window=3)
    np.testing.assert_array_equal(found[0, 0], [[False, True]])
    self.assertIsNone(visible(key, key))


class RingCacheTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 3, 4, 5, 11)
  def test_held_by_hand(self, length):
    places = [-1] * 4
    for token in range(length):
      places[token % 4] = token
    found = np.asarray(held(length, 4))
    np.testing.assert_array_equal(np.where(found < 0, -1, found), places)

  def test_put_in_parts_of_any_size(self):
    """Tokens are their own numbers; parts end within, at and past the end."""
    ring, length = jnp.full((1, 4, 1, 1), -1.0), 0
    put = jax.jit(put_in_ring)
    for count in (1, 3, 2, 4, 9, 1):
      new = jnp.arange(length, length + count, dtype=jnp.float32).reshape(1, -1, 1, 1)
      ring, length = put(ring, new, length), length + count
      np.testing.assert_array_equal(
        ring.ravel(), jnp.maximum(held(length, 4), -1).astype(jnp.float32)
      )


class RefusalsTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'norm': 'middle'}, 'norm=middle is not allowed: must be one of pre, post'),
    ({'mlp': 'relu'}, 'mlp=relu is not allowed: must be one of gelu, geglu, swiglu'),
    ({'window': 0}, 'window=0 is not allowed: must be at least 1'),
    ({'soft_cap': 0.0}, 'soft_cap=0.0 is not allowed: must be above 0'),
    ({'relative': Relative(6)}, r'relative=\(6, 128\) .* a multiple of 4 buckets'),
    ({'relative': Relative(8, 4)}, r'relative=\(8, 4\) .* a distance above half'),
  )
  def test_block_config(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      BlockConfig(width=8, num_heads=2, **fields)


if __name__ == '__main__':
  absltest.main()
