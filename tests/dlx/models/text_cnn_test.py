"""TextCNN: windows by hand, size, torch with copied weights."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.models import text_cnn as lib
from dlx.models.text_cnn import TextCNN

SENTENCES = ([3, 4, 5], [6], [7, 8, 9, 3, 4, 5, 6], [2, 2])


def padded(sentences, length):
  rows = [s + [0] * (length - len(s)) for s in sentences]
  return jnp.asarray(rows, jnp.int32)


def model(**fields):
  return TextCNN(**{'vocabulary_size': 10, 'embedding': 5, 'filters': 4, **fields})


def init(net, tokens):
  return jax.jit(lambda: net.init(jax.random.key(0), tokens, train=False))()


class MaxOverTimeTest(absltest.TestCase):
  def test_by_hand(self):
    # Words of one number: windows of two words give x + 10 y + bias.
    x_BTD = jnp.array([[1.0, -2, 3, 9], [-1, 7, 7, 7], [5, 5, 5, 5]])[..., None]
    kernel = jnp.array([1.0, 10]).reshape(2, 1, 1)
    length_B, bias = jnp.array([3, 1, 0]), jnp.array([0.5])
    found = lib.max_over_time(x_BTD, length_B, [kernel], [bias])
    # Of 1, -2, 3: (0, 1) 10, (1, -2) -19, (-2, 3) 28, (3, 0) 3; of -1: -10 and -1.
    np.testing.assert_array_equal(found, [[28.5], [0], [0.5]])
    # Padding of nan changes nothing, and a filter that finds nothing gives no slope.
    x_BTD = jnp.where(jnp.arange(4)[None, :, None] < length_B[:, None, None],
                      x_BTD, jnp.nan)  # fmt: skip
    slope = jax.grad(lambda x: lib.max_over_time(x, length_B, [kernel], [bias]).sum())
    wanted = [[0, 1, 10, 0], [0] * 4, [0] * 4]
    np.testing.assert_array_equal(slope(x_BTD)[..., 0], wanted)


class TextCNNTest(parameterized.TestCase):
  def test_parameters_by_hand(self):
    net = model(embedding=6, widths=(3, 4, 5), filters=7, num_outputs=3)
    shapes = jax.eval_shape(
      lambda: net.init(jax.random.key(0), padded(SENTENCES, 9), train=False)
    )
    count = sum(x.size for x in jax.tree.leaves(shapes))
    self.assertEqual(count, 10 * 6 + (3 + 4 + 5) * 6 * 7 + 3 * 7 + 21 * 3 + 3)
    self.assertEqual(shapes['params']['conv_4']['kernel'].shape, (4, 6, 7))

  def test_word_order_matters_within_a_window(self):
    net = model(widths=(2,))
    variables = init(net, padded(SENTENCES, 9))
    tokens = jnp.array([[3, 4, 5], [5, 4, 3]])
    a, b = np.array(net.apply(variables, tokens, train=False))
    self.assertGreater(np.abs(a - b).max(), 1e-4)
    # One word wide, it is a bag of words.
    net = model(widths=(1,))
    a, b = np.array(net.apply(init(net, tokens), tokens, train=False))
    np.testing.assert_allclose(a, b, rtol=1e-6)

  def test_tokens_out_of_range_are_nan(self):
    net, tokens = model(), jnp.array([[1, 9], [1, 10], [1, -1]])
    logits = net.apply(init(net, tokens[:1]), tokens, train=False)
    np.testing.assert_array_equal(np.isnan(logits).any(1), [False, True, True])

  def test_dropout_in_training_alone(self):
    net, tokens = model(embedding_dropout=0.3, dropout=0.5), padded(SENTENCES, 7)
    variables = init(net, tokens)
    apply = lambda train, seed: np.asarray(
      net.apply(variables, tokens, train=train, rngs={'dropout': jax.random.key(seed)})
    )
    np.testing.assert_array_equal(apply(False, 0), apply(False, 1))
    self.assertFalse((apply(True, 0) == apply(True, 1)).all())

  def test_narrow_arithmetic_gives_wide_logits(self):
    net, tokens = model(dtype=jnp.bfloat16), padded(SENTENCES, 7)
    out, variables = jax.eval_shape(
      lambda: net.init_with_output(jax.random.key(0), tokens, train=False)
    )
    self.assertEqual(out.dtype, jnp.float32)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(variables)}, {jnp.dtype('float32')}
    )


def test_values_and_gradients_are_those_of_torch():
  torch = pytest.importorskip('torch')
  net, tokens = model(num_outputs=3, widths=(2, 3)), padded(SENTENCES, 7)
  variables = init(net, tokens)
  params = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape),
    variables['params'],
  )

  def score(p) -> Any:
    return net.apply({'params': p}, tokens, train=False)

  logits, slopes = jax.jit(
    lambda p: (score(p), jax.grad(lambda p: (score(p) ** 2).sum())(p))
  )(params)

  weights = jax.tree.map(
    lambda x: torch.tensor(np.asarray(x), requires_grad=True), params
  )
  rows = []
  for sentence in SENTENCES:  # One by one: torch has no lengths here.
    x_1DT = weights['embedding']['embedding'][sentence].T[None]
    found = []
    for width in (2, 3):
      conv = weights[f'conv_{width}']
      y_1FP = torch.nn.functional.conv1d(
        x_1DT, conv['kernel'].permute(2, 1, 0), conv['bias'], padding=width - 1
      )
      found.append(torch.relu(y_1FP).amax(-1))
    head = weights['head']
    rows.append(torch.cat(found, 1) @ head['kernel'] + head['bias'])
  wanted = torch.cat(rows)
  (wanted**2).sum().backward()
  # Sums of at most 3 x 5 products, then of 8; a few roundings of float32.
  np.testing.assert_allclose(logits, wanted.detach().numpy(), rtol=2e-5, atol=2e-6)
  for (path, ours), theirs in zip(
    jax.tree.leaves_with_path(slopes), jax.tree.leaves(weights), strict=True
  ):
    np.testing.assert_allclose(
      ours,
      theirs.grad.numpy(),
      rtol=5e-5,
      atol=5e-6,
      err_msg=jax.tree_util.keystr(path),
    )


if __name__ == '__main__':
  absltest.main()
