"""Operations counted on jaxprs: by hand, and against formulas."""

import functools

from absl.testing import absltest, parameterized
import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from dlx.run import flops
from dlx.run.taps import meetings
from experiments.transformers import char_gpt
from kernels.conv import conv2d

W, X = jax.ShapeDtypeStruct((10, 64, 64), 'float32'), (8, 64)
FORWARD = 10 * 2 * 8 * 64 * 64


def count(function, *shapes, platform='tpu'):
  shapes = [
    s if hasattr(s, 'dtype') else jax.ShapeDtypeStruct(s, 'float32') for s in shapes
  ]
  return flops.count(jax.make_jaxpr(function)(*shapes), platform)


def chain(w, x, *, policy=None, remat=False):
  """Ten products in a scan."""

  def body(x, w):
    return jnp.tanh(x @ w), None

  if remat:
    body = jax.checkpoint(body, prevent_cse=False, policy=policy)
  return (jax.lax.scan(body, x, w)[0] ** 2).sum()


class ProductTest(parameterized.TestCase):
  def test_products_count_a_multiply_add_as_two(self):
    self.assertEqual(count(jnp.matmul, (3, 4), (4, 5)).total, 2 * 3 * 4 * 5)
    batched = count(functools.partial(jnp.einsum, 'bij,bjk->bik'), (7, 3, 4), (7, 4, 5))
    self.assertEqual(batched.total, 7 * 2 * 3 * 4 * 5)

  def test_scopes_have_their_own_share_and_add_up(self):
    def inner(x, w):
      with jax.named_scope('b'):
        return jnp.tanh(x @ w), None

    def f(w, x):
      with jax.named_scope('a'):
        y = jax.jit(lambda x: jax.lax.scan(inner, x, w)[0])(x)
      return y @ w[0]

    jaxpr = jax.make_jaxpr(f)(W, jax.ShapeDtypeStruct(X, 'float32'))
    one = FORWARD // 10
    shares = {name: part.total for name, part in flops.by_scope(jaxpr).items()}
    self.assertEqual(shares, {'a/b': FORWARD, '': one})
    self.assertEqual(flops.count(jaxpr).total, FORWARD + one)

  def test_what_is_no_product_counts_nothing(self):
    self.assertEqual(count(lambda x: jnp.tanh(x) + x.sum(), (3, 4)).total, 0)

  def test_scan_counts_as_often_as_it_is_long_and_a_gradient_three_times(self):
    self.assertEqual(count(chain, W, X), (FORWARD, 0, 0))
    self.assertEqual(count(jax.grad(chain, (0, 1)), W, X), (3 * FORWARD, 0, 0))

  def test_what_is_computed_again_is_counted_and_told_apart(self):
    full = count(jax.grad(functools.partial(chain, remat=True), (0, 1)), W, X)
    self.assertEqual(full, (4 * FORWARD, FORWARD, 0))
    kept = functools.partial(
      chain, remat=True, policy=jax.checkpoint_policies.dots_saveable
    )
    self.assertEqual(count(jax.grad(kept, (0, 1)), W, X), (3 * FORWARD, 0, 0))

  def test_what_nobody_uses_counts_nothing(self):
    f = lambda a, b: (jax.jit(lambda a, b: (a @ b, a @ a))(a, b)[0], (b @ b) * 0 + 1)[0]
    self.assertEqual(count(f, (4, 4), (4, 4)).total, 2 * 4**3)

    def body(carry, x):
      a, b, c = carry
      return (a @ x, b @ a, c @ x), (x @ x, a)  # c, and x @ x, end here.

    g = lambda x, w: jax.lax.scan(body, (x, x, x), w)
    used = lambda x, w: (g(x, w)[0][1], g(x, w)[1][1])
    one = count(used, (4, 4), (5, 4, 4)).total / (5 * 2 * 4**3)
    self.assertEqual(one, 3)  # a @ x twice, b @ a once.

  def test_calls_inside_calls(self):
    @jax.custom_vjp
    def product(a, b):
      return a @ b

    product.defvjp(lambda a, b: (a @ b, (a, b)), lambda kept, d: (d @ kept[1].T, d))
    one = 2 * 4 * 4 * 4
    self.assertEqual(count(jax.jit(product), (4, 4), (4, 4)).total, one)
    sliding = jax.grad(lambda a, b: (jax.jit(product)(a, b) ** 2).sum())
    self.assertEqual(count(sliding, (4, 4), (4, 4)).total, 2 * one)


class BranchTest(absltest.TestCase):
  def test_the_dearest_branch_counts(self):
    f = lambda i, x: jax.lax.cond(i > 0, lambda x: x @ x @ x, lambda x: x @ x, x)
    self.assertEqual(count(f, (), (4, 4)).total, 2 * 2 * 4**3)

  def test_of_platforms_the_one_that_is_meant_counts(self):
    f = lambda x: jax.lax.platform_dependent(
      x, cpu=lambda x: x @ x @ x @ x, tpu=lambda x: x @ x, default=lambda x: x
    )
    found = {p: count(f, (4, 4), platform=p).total for p in ('cpu', 'tpu')}
    self.assertEqual(found, {'cpu': 3 * 2 * 4**3, 'tpu': 2 * 4**3})
    # One without products calls a library: as the others count it.
    self.assertEqual(count(f, (4, 4), platform='cuda').total, 3 * 2 * 4**3)

  def test_a_depthwise_convolution_counts_alike_on_all_platforms(self):
    f = lambda x, w: conv2d(x, w, groups=3, stride=2)
    shapes = (2, 5, 4, 3), (3, 3, 1, 3)
    gradient = lambda x, w: jax.grad(lambda x, w: f(x, w).sum(), (0, 1))(x, w)
    # 'SAME': rows 0, 2, 4 see 2, 3 and 2 rows, columns 0, 2 see 3 and 2 columns.
    once = 2 * 2 * 3 * (2 + 3 + 2) * (3 + 2)
    for platform in ('cpu', 'cuda', 'tpu'):
      self.assertEqual(count(f, *shapes, platform=platform).total, once)
      self.assertEqual(count(gradient, *shapes, platform=platform).total, 2 * once)


class LoopTest(absltest.TestCase):
  def test_known_numbers_make_a_known_length(self):
    f = lambda x: jax.lax.while_loop(
      lambda c: c[0] < 11, lambda c: (c[0] + 3, c[1] @ c[1]), (2, x)
    )
    self.assertEqual(count(f, (4, 4)), (3 * 2 * 4**3, 0, 0))

  def test_a_length_that_only_the_run_knows_counts_once_and_is_told(self):
    f = lambda n, x: jax.lax.fori_loop(0, n, lambda i, x: x @ x, x)
    n = jax.ShapeDtypeStruct((), 'int32')
    self.assertEqual(count(f, n, (4, 4)), (2 * 4**3, 0, 1))
    idle = lambda n, x: jax.lax.fori_loop(0, n, lambda i, x: x + x, x)
    self.assertEqual(count(idle, n, (4, 4)), (0, 0, 0))

  def test_a_loop_as_long_as_the_counter_of_another(self):
    """The blocks of a causal mask: 1 + 2 + 3 + 4 products."""

    def f(x):
      row = lambda i, x: jax.lax.fori_loop(0, i + 1, lambda j, x: x @ x, x)
      first, stop = (jnp.asarray(n, jnp.int32) for n in (0, 4))
      return jax.lax.fori_loop(first // 2, stop, row, x)

    self.assertEqual(count(f, (4, 4)), (10 * 2 * 4**3, 0, 0))

  def test_numbers_wrap_around_as_they_do_in_32_bits(self):
    def f(x):
      start = jnp.asarray(2**31 - 2, jnp.int32) + 4  # -(2**31) + 2
      stop = jnp.asarray(-(2**31) + 5, jnp.int32)
      return jax.lax.fori_loop(start, stop, lambda i, x: x @ x, x)

    self.assertEqual(count(f, (4, 4)), (3 * 2 * 4**3, 0, 0))


class ConvolutionTest(parameterized.TestCase):
  def test_padding_is_no_work(self):
    conv = lambda x, w: jax.lax.conv_general_dilated(
      x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    # 3 taps on 5 places: 13 of 15 pairs lie inside, along either side.
    self.assertEqual(
      count(conv, (2, 5, 5, 3), (3, 3, 3, 7)).total, 2 * 2 * 7 * 3 * 13 * 13
    )

  @parameterized.parameters(
    dict(strides=(2, 1)),
    dict(rhs_dilation=(2, 3)),
    dict(lhs_dilation=(2, 2)),
    dict(groups=3),
    dict(padding=((0, 2), (-1, 1))),
  )
  def test_either_gradient_is_as_much_work_as_the_convolution(self, **options):
    padding = options.pop('padding', ((1, 1), (2, 0)))
    groups = options.pop('groups', 1)
    strides = options.pop('strides', (1, 1))
    conv = lambda x, w: jax.lax.conv_general_dilated(
      x, w, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=groups, **options,
    )  # fmt: skip
    shapes = ((2, 9, 8, 6), (3, 3, 6 // groups, 9))
    once = count(conv, *shapes).total
    self.assertGreater(once, 0)
    both = jax.grad(lambda x, w: (conv(x, w) ** 2).sum(), (0, 1))
    self.assertEqual(count(both, *shapes).total, 3 * once)

  @parameterized.parameters(
    dict(), dict(window_strides=(2, 1)), dict(lhs_dilation=(2, 1)),
    dict(rhs_dilation=(1, 2)), dict(feature_group_count=3),
  )  # fmt: skip
  def test_equals_what_xla_counts(self, **options):
    """Which counts a body once, but a convolution by itself as it is."""
    groups = options.get('feature_group_count', 1)
    options = {'window_strides': (1, 1), 'padding': ((1, 2), (0, 1)), **options}
    conv = lambda x, w: jax.lax.conv_general_dilated(
      x, w, dimension_numbers=('NHWC', 'HWIO', 'NHWC'), **options
    )
    shapes = ((2, 9, 8, 6), (3, 3, 6 // groups, 9))
    args = [jax.ShapeDtypeStruct(shape, 'float32') for shape in shapes]
    wanted = jax.jit(conv).lower(*args).cost_analysis()['flops']
    self.assertEqual(count(conv, *shapes).total, wanted)

  @parameterized.parameters(
    (5, 3, 5, dict(low=1), 13),
    (5, 3, 3, dict(low=1, stride=2), 7),
    (3, 2, 6, dict(low=1, lhs_dilation=2), 6),  # Every input meets either tap.
    (5, 2, 3, dict(rhs_dilation=2), 6),
  )
  def test_meetings_by_hand(self, size, taps, places, options, wanted):
    self.assertEqual(meetings(size, taps, places, **options), wanted)


def kernel(x, y, o):
  o[...] = x[...] @ y[...]


class KernelTest(absltest.TestCase):
  def product(self, x, **options):
    return pl.pallas_call(
      kernel,
      out_shape=jax.ShapeDtypeStruct((16, 16), jnp.float32),
      grid=(2,),
      in_specs=[
        pl.BlockSpec((8, 16), lambda i: (i, 0)),
        pl.BlockSpec((16, 16), lambda i: (0, 0)),
      ],
      out_specs=pl.BlockSpec((8, 16), lambda i: (i, 0)),
      interpret=True,
      **options,
    )(x, x)

  def test_body_for_every_block_of_the_grid(self):
    self.assertEqual(count(self.product, (16, 16)).total, 2 * 16**3)

  def test_what_its_author_says_stands_above_that(self):
    said = pl.CostEstimate(flops=77, transcendentals=0, bytes_accessed=0)
    f = functools.partial(self.product, cost_estimate=said)
    self.assertEqual(count(f, (16, 16)).total, 77)

  def test_shard_map_counts_all_its_devices(self):
    mesh = AbstractMesh((4, 2), ('a', 'b'), axis_types=(AxisType.Auto,) * 2)
    f = jax.shard_map(
      jnp.matmul, mesh=mesh, in_specs=(P('a'), P(None, 'b')), out_specs=P('a', 'b')
    )
    self.assertEqual(count(f, (8, 16), (16, 32)).total, 2 * 8 * 16 * 32)


class LanguageModelTest(parameterized.TestCase):
  """6 N D and attention, of the step that is trained."""

  CONFIG = dict(num_layers=3, width=64, context=1024, batch_size=2, unroll=1)

  def counted(self, **fields):
    built = char_gpt.build(char_gpt.Config(**self.CONFIG | fields))
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    step = jax.make_jaxpr(built.train_step)(state, built.train_data.shapes[0])
    return flops.count(step, 'tpu'), built

  def attention(self):
    c = self.CONFIG
    return 12 * c['num_layers'] * c['width'] * c['context'] ** 2 * c['batch_size']

  @parameterized.parameters('off', 'dots', 'full')
  def test_equals_the_formula_but_for_the_blocks_that_no_query_sees(self, remat):
    found, built = self.counted(remat=remat)
    maps = built.flops_per_step - self.attention()  # 6 N D.
    self.assertEqual(found.open_loops, 0)
    # XLA's attention in blocks of 512 queries and keys: 3 of 4 are computed. Two
    # products forward; backward the scores again and four slopes: 7 in place of 6. And
    # a product of o and do, row by row.
    c = self.CONFIG
    rows = 2 * c['num_layers'] * c['batch_size'] * c['context'] * c['width']
    once = maps + self.attention() * 3 / 4 * 7 / 6 + rows
    self.assertEqual(found.total - found.recomputed, once)
    again = {
      'off': 0,
      'dots': self.attention() * 3 / 4 * 2 / 6,
      # The maps of the blocks too, but for the last, whose result nobody needs.
      'full': self.attention() * 3 / 4 * 2 / 6 + 2 * 8 * c['width'] * rows / 2,
    }[remat]
    self.assertEqual(found.recomputed, again)


if __name__ == '__main__':
  absltest.main()
