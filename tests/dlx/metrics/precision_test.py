"""What is reported is computed in full precision on every device."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp

from dlx import metrics
from dlx.data.sets import images
from dlx.models import vit
from dlx.precision import EXACT
from dlx.tasks.judge import Judge

F32 = jnp.float32
ROWS, LABELS = jax.ShapeDtypeStruct((6, 3), F32), jax.ShapeDtypeStruct((6,), jnp.int32)
WEIGHTS = jax.ShapeDtypeStruct((6,), F32)
MEAN, SQUARE = jax.ShapeDtypeStruct((3,), F32), jax.ShapeDtypeStruct((3, 3), F32)
IMAGES = jax.ShapeDtypeStruct((2, 12, 11, 1), F32)
LAYERS = jax.ShapeDtypeStruct((2, 1, 2, 5, 5), F32)


def products(jaxpr: Any):
  """All products of matrices in a program, whatever they stand in."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    ):
      if hasattr(inner, 'eqns') or hasattr(inner, 'jaxpr'):
        yield from products(getattr(inner, 'jaxpr', inner))


class PrecisionTest(parameterized.TestCase):
  @parameterized.parameters(
    (metrics.calibration_sums, ROWS, LABELS, WEIGHTS),
    (metrics.confusion, ROWS, LABELS, WEIGHTS),
    (metrics.feature_moments, ROWS, WEIGHTS),
    (metrics.frechet_distance, MEAN, SQUARE, MEAN, SQUARE),
    (lambda x: metrics.mmd(x, x, metrics.gaussian_kernel(1.0)), ROWS),
    (lambda x: metrics.mmd(x, x, metrics.polynomial_kernel()), ROWS),
    (metrics.inception_sums, ROWS, WEIGHTS),
    (metrics.ssim, IMAGES, IMAGES),
    (lambda x: metrics.nearest_distance(x, 6), ROWS),
    (lambda x: metrics.nearest(x, x, k=2), ROWS),
    (metrics.uniformity, ROWS),
    (metrics.principal_components, ROWS),
    (lambda x, y: metrics.fit_linear(x, y, num_classes=3)(x), ROWS, LABELS),
    (vit.rollout, LAYERS),
  )
  def test_every_product_is_exact(self, function, *args):
    """TPUs would round operands to bfloat16: a Frechet distance of 4.63 for 4.43."""
    found = list(products(jax.make_jaxpr(function)(*args).jaxpr))
    self.assertNotEmpty(found)
    self.assertEqual({x.params['precision'] for x in found}, {(EXACT, EXACT)})

  def test_classes_that_the_judge_counts(self):
    judge = Judge(images.images('digits'))
    state = jax.eval_shape(judge.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((6, *judge.data.shape), F32)
    sums = lambda *args: judge.sums(*args)['classes']
    traced = jax.make_jaxpr(sums)(state, image, image, LABELS, WEIGHTS)
    counted = [x for x in products(traced.jaxpr) if x.outvars[0].aval.shape == (10,)]
    self.assertEqual({x.params['precision'] for x in counted}, {(EXACT, EXACT)})


if __name__ == '__main__':
  absltest.main()
