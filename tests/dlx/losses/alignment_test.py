"""CTC: against a sum over all alignments, impossible ones, torch."""

import itertools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses

EPS = float(np.finfo(np.float32).eps)
ctc = jax.jit(losses.ctc)


def by_enumeration(log_TK, label, blank=0):
  """Minus the logarithm of the sum over all paths that collapse to the label."""
  steps, classes = log_TK.shape
  total = 0.0
  for path in itertools.product(range(classes), repeat=steps):
    merged = [k for k, _ in itertools.groupby(path) if k != blank]
    if merged == list(label):
      total += np.exp(sum(log_TK[t, k] for t, k in enumerate(path)))
  return -np.log(total)


class CtcTest(absltest.TestCase):
  def test_all_alignments(self):
    logits = jax.random.normal(jax.random.key(0), (4, 5, 3))
    label = jnp.array([[1, 2], [1, 1], [2, 0], [0, 0]])
    lengths, steps = jnp.array([2, 2, 1, 0]), jnp.array([5, 4, 5, 3])
    found = ctc(logits, label, steps, lengths)
    log = np.asarray(jax.nn.log_softmax(logits), np.float64)
    for i in range(4):
      wanted = by_enumeration(log[i, : steps[i]], np.asarray(label[i, : lengths[i]]))
      np.testing.assert_allclose(found[i], wanted, rtol=64 * EPS)

  def test_impossible_rows_are_inf_without_a_gradient(self):
    # Three steps hold 1, blank, 1; two do not; nor do they hold three labels.
    logits = jax.random.normal(jax.random.key(0), (3, 3, 3))
    label = jnp.array([[1, 1, 0], [1, 1, 0], [1, 2, 1]])
    steps, lengths = jnp.array([3, 2, 2]), jnp.array([2, 2, 3])
    found = ctc(logits, label, steps, lengths)
    np.testing.assert_array_equal(np.isinf(found), [False, True, True])
    loss = lambda x: losses.ctc(x, label, steps, lengths)
    slope = jax.jit(jax.grad(lambda x: loss(x).sum()))(logits)
    self.assertGreater(np.abs(slope[0]).min(), 0)
    np.testing.assert_array_equal(slope[1:], 0)

  def test_extremes_and_types(self):
    # Of certain steps 1, blank, 2 the label 1 2 costs nothing.
    logits = 1e4 * jax.nn.one_hot(jnp.array([[1, 0, 2]]), 3)
    call = lambda x: losses.ctc(x, jnp.array([[1, 2]]), jnp.array([3]), jnp.array([2]))
    value, slope = jax.jit(jax.value_and_grad(lambda x: call(x).sum()))(logits)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    self.assertTrue(np.isfinite(slope).all())
    self.assertEqual(call(logits.astype(jnp.bfloat16)).dtype, jnp.float32)

  def test_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 9, 4)).astype(np.float32)
    label = rng.integers(0, 3, size=(5, 4))
    steps, lengths = np.array([9, 8, 9, 7, 9]), np.array([4, 3, 1, 2, 4])
    given = torch.tensor(logits, requires_grad=True)
    wanted = torch.nn.functional.ctc_loss(
      given.log_softmax(2).transpose(0, 1),
      torch.tensor(label),
      torch.tensor(steps),
      torch.tensor(lengths),
      blank=3,
      reduction='none',
    )
    wanted.sum().backward()
    loss = lambda x: losses.ctc(x, label, steps, lengths, blank=3)
    found, slope = jax.jit(lambda x: (loss(x), jax.grad(lambda x: loss(x).sum())(x)))(
      jnp.asarray(logits)
    )
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=64 * EPS)
    # Sums of exponentials of nine steps, each rounded at some 20.
    np.testing.assert_allclose(slope, given.grad.numpy(), atol=9 * 20 * EPS)


if __name__ == '__main__':
  absltest.main()
