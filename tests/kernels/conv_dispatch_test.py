"""`conv2d`: arguments, who computes, derivatives of the whole, transformations."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import conv, dispatch
from kernels.conv import api, conv1d, conv2d, conv2d_transpose, explain, reference
from kernels.conv.case import ACTIVATIONS, FILTER, FORWARD, INPUT, Operands, describe
from kernels.onednn import library
from tests.kernels.conv_cases import SWEEP, arrays

SPEC = jax.ShapeDtypeStruct
X, W = SPEC((2, 6, 5, 4), 'float32'), SPEC((3, 3, 4, 6), 'float32')
BAD = (
  (dict(x=SPEC((2, 6, 4), 'float32')), r'x=\(2, 6, 4\) is not allowed: .*4 axes'),
  (dict(w=SPEC((3, 3, 4), 'float32')), r'w=\(3, 3, 4\) .*4 axes'),
  (dict(w=SPEC((3, 0, 4, 6), 'float32')), 'w=.*none empty'),
  (dict(w=SPEC((3, 3, 4, 6), 'bfloat16')), 'float32, bfloat16.*one floating dtype'),
  (dict(x=SPEC((2, 6, 5, 4), 'int32'), w=SPEC((3, 3, 4, 6), 'int32')), 'dtype of x, w'),
  (dict(w=SPEC((3, 3, 2, 6), 'float32')), r'w=.*\(3, 3, 4, 6\) for x'),
  (dict(groups=2), r'w=.*\(3, 3, 2, 6\) for x .* and groups=2'),
  (dict(groups=4), 'groups=4 .*divisor of 4 channels and 6 features'),
  (dict(groups=0), 'groups=0'),
  (dict(stride=0), 'stride=0 .*one or two whole numbers of 1 or more'),
  (dict(stride=(1, 2, 1)), 'stride='),
  (dict(dilation=1.5), 'dilation=1.5'),
  (dict(padding='FULL'), "padding='FULL' .*'SAME', 'VALID' or two pairs"),
  (dict(padding=1), 'padding=1 .*two pairs'),
  (dict(padding=(1, 1)), r'padding=\(1, 1\)'),
  (dict(padding=((1, -1), (0, 0))), 'padding=.*0 or more'),
  (dict(scale=SPEC((4,), 'float32')), r'scale=float32\(4,\) .*\(6,\)'),
  (dict(shift=SPEC((6,), 'int32')), 'shift=int32.*floating'),
  (dict(residual=SPEC((2, 6, 5, 4), 'float32')), r'residual=.*\(2, 6, 5, 6\)'),
  (dict(residual=SPEC((2, 6, 5, 6), 'bfloat16')), 'residual=bfloat16.*float32'),
  (dict(activation='tanh'), "activation='tanh' .*relu, relu6, gelu, silu"),
)


@pytest.mark.parametrize('changed, message', BAD)
def test_a_bad_argument_is_one_clear_line(changed, message):
  arguments = {'x': X, 'w': W, **changed}
  with pytest.raises(ValueError, match=message) as caught:
    conv2d(**arguments)
  assert '\n' not in str(caught.value) and len(str(caught.value)) < 200


def test_conv1d_has_three_axes():
  with pytest.raises(ValueError, match='x=.*3 axes'):
    conv1d(X, W)
  with pytest.raises(ValueError, match='padding='):
    conv1d(jnp.ones((1, 4, 1)), jnp.ones((2, 1, 1)), padding=1)


def test_the_case():
  case = describe(X, W, stride=2, dilation=(1, 2), activation='relu')
  assert case.padding == ((0, 1), (2, 2)) and case.out_shape == (2, 3, 3, 6)
  assert (case.kernel, case.stride, case.dilation) == ((3, 3), (2, 2), (1, 2))
  assert hash(case) and not case.empty and not case.depthwise
  bare = case.bare(FILTER)
  assert (bare.activation, bare.function, bare.stride) == (None, FILTER, (2, 2))
  assert describe(X, SPEC((3, 3, 1, 4), 'float32'), groups=4).depthwise
  assert describe(X, SPEC((7, 7, 4, 1), 'float32'), padding='VALID').empty


def test_importing_it_imports_no_pallas():
  code = 'import sys, kernels.conv; print([m for m in sys.modules if "pallas" in m])'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == '[]'


# Who computes.


def fake(name, refusal=None, **options):
  """The reference under another name, and what it was called with."""
  calls = []

  def function(which):
    def call(*args, **given):
      calls.append((which, given))
      return getattr(reference, which)(*args)

    return call

  functions = {which: function(which) for which in (FORWARD, INPUT, FILTER)}
  refusal = refusal or (lambda case: None)
  return dispatch.Backend(name, ('cuda',), refusal, functions, **options), calls


@pytest.fixture
def simulated(monkeypatch):
  """A simulated kernel of filter gradients of 3 x 3 alone, and its calls."""

  def refusal(case):
    if case.function != FILTER:
      return dispatch.Refusal(f'function={case.function}', FILTER)
    return None

  backend, calls = fake('fake', refusal, simulated=True)
  monkeypatch.setitem(api.BACKENDS, 'fake', backend)
  return calls


def loss(x, w, **options):
  return jnp.sin(conv2d(x, w, **options)).sum()


def test_a_named_implementation_obeys_or_raises(simulated):
  x, w = jnp.ones(X.shape), jnp.ones(W.shape)
  with pytest.raises(conv.UnsupportedKernel, match='fake: function=forward.*nearest'):
    conv2d(x, w, implementation='fake')
  with pytest.raises(ValueError, match="implementation='best'.*reference, xla, onedn"):
    conv2d(x, w, implementation='best')
  # In the order of trial, each function for itself.
  gradient = jax.grad(functools.partial(loss, implementation=('fake', 'xla')), (0, 1))
  found, wanted = gradient(x, w), jax.grad(loss, (0, 1))(x, w)
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  assert simulated == [(FILTER, {'interpret': True, 'config': {}})]
  # A convolution it has, and a gradient it has not.
  bfloat16 = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
  with pytest.raises(conv.UnsupportedKernel, match='onednn: .*dtype=bfloat16|oneDNN'):
    conv2d(*bfloat16, implementation='onednn')


def test_a_gradient_that_the_named_one_lacks_raises_when_it_is_taken(monkeypatch):
  def refusal(case):
    return None if case.function == FORWARD else dispatch.Refusal('only forward')

  backend, _ = fake('forward_only', refusal, simulated=True)
  monkeypatch.setitem(api.BACKENDS, 'forward_only', backend)
  x, w = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
  run = functools.partial(loss, implementation='forward_only')
  np.testing.assert_allclose(run(x, w), loss(x, w), rtol=1e-5)
  with pytest.raises(conv.UnsupportedKernel, match='only forward'):
    jax.grad(run)(x, w)


def test_what_is_compiled_for_elsewhere(monkeypatch):
  backend, calls = fake('gpu_only')
  monkeypatch.setitem(api.BACKENDS, 'gpu_only', backend)
  x, w = jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1))
  run = functools.partial(conv2d, implementation='gpu_only')
  with pytest.raises(conv.UnsupportedKernel, match='gpu_only: it is not for cpu'):
    run(x, w)
  run = functools.partial(run, interpret=False)
  jax.jit(run).trace(x, w).lower(lowering_platforms=('cuda',))
  assert calls == [(FORWARD, {})]


def test_a_measured_row_chooses_for_its_function(simulated, monkeypatch, tmp_path):
  rows = [
    {
      'match': {'function': FILTER, 'channels': [1, 8], 'groups': 1},
      'implementation': 'fake',
      'config': {'rows': 4},
      'evidence': {'ms': 1.0},
    }
  ]
  file = tmp_path / dispatch.file_name(jax.devices()[0].device_kind)
  file.write_text(json.dumps({'rows': rows}))
  operation = api.OPERATION._replace(tuned=tmp_path)
  monkeypatch.setattr(api, 'OPERATION', operation)
  x, w = jnp.ones(X.shape), jnp.ones(W.shape)
  # Where it is compiled for: rows of this device hold for its platform.
  monkeypatch.setattr(dispatch, 'default_platform', lambda: 'cpu')
  jax.grad(loss, (0, 1))(x, w)
  assert simulated == [(FILTER, {'interpret': True, 'config': {'rows': 4}})]
  lines = [line for line in explain(X, W).splitlines() if 'measured:' in line]
  assert len(lines) == 1 and lines[0].startswith(f'{FILTER} by fake')
  wider = SPEC((1, 4, 4, 9), 'float32'), SPEC((1, 1, 9, 1), 'float32')
  assert 'measured:' not in explain(*wider)


def test_explain():
  lines = explain(X, W, platform='cuda').splitlines()
  assert [line.split(' (')[0] for line in lines] == [
    f'{function} by xla: the library of cuda; no measured row'
    for function in (FORWARD, INPUT, FILTER)
  ]
  half = SPEC(X.shape, 'bfloat16'), SPEC(W.shape, 'bfloat16')
  text = explain(*half, platform='cpu')
  assert text.count('by xla') == text.count('not onednn: ') == 3
  assert 'asked for' in explain(X, W, implementation='reference', platform='tpu')


@pytest.mark.usefixtures('onednn')
def test_onednn_says_why_not(monkeypatch):
  assert explain(X, W, platform='cpu').count('by onednn') == 3
  with pytest.raises(conv.UnsupportedKernel, match='onednn: it is not for cuda'):
    explain(X, W, implementation='onednn', platform='cuda')

  def reason(x, w, **options):
    with pytest.raises(conv.UnsupportedKernel) as caught:
      conv2d(x, w, implementation='onednn', **options)
    return str(caught.value.refusals['onednn'])

  half = SPEC(X.shape, 'float16'), SPEC(W.shape, 'float16')
  assert reason(*half) == 'dtype=float16 (nearest: float32 or bfloat16)'
  assert 'nothing' in reason(SPEC((0, 6, 5, 4), 'float32'), W)
  assert 'nothing' in reason(X, SPEC((7, 7, 4, 6), 'float32'), padding='VALID')
  with library.unused():
    assert 'library.unused' in reason(X, W)
  monkeypatch.setenv(library.SWITCH, 'off')
  library.load.cache_clear()
  library.reason.cache_clear()
  assert reason(X, W) == 'oneDNN is not used: DLX_ONEDNN=off'


@pytest.mark.usefixtures('onednn')
def test_one_program_for_all_platforms():
  """The call is in the CPU's part alone."""
  slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))
  on = lambda p: slopes.trace(X, W).lower(lowering_platforms=(p,)).as_text()
  assert on('cpu').count('dlx_onednn_conv') == 3
  for platform in ('cuda', 'tpu'):
    assert 'dlx_onednn' not in on(platform) and 'stablehlo.convolution' in on(platform)


# Derivatives of the whole.


def everything(run, x, w, scale, shift, residual):
  """Values, first derivatives, and those of their squares: grad of grad."""
  args = (x, w, scale, shift, residual)
  total = lambda *args: jnp.sin(run(*args)).sum()
  first = lambda *args: jax.grad(total, argnums=range(5))(*args)
  square = lambda *args: sum((g**2).sum() for g in first(*args))
  return run(*args), first(*args), jax.grad(square, argnums=range(5))(*args)


@pytest.mark.parametrize('activation', (None, *ACTIVATIONS))
def test_first_and_second_derivatives_are_autodiff_s_of_the_reference(activation):
  sizes = SWEEP[4 if activation in ('gelu', 'relu') else 1]
  x_shape, w_shape, options = sizes
  *inputs, _ = arrays(x_shape, w_shape, options)
  with jax.enable_x64(True):
    case = describe(*inputs[:2], **options, activation=activation)

    def ours(x, w, scale, shift, residual):
      return conv2d(
        x, w, scale=scale, shift=shift, residual=residual, activation=activation,
        implementation='xla', **options,
      )  # fmt: skip

    plain = lambda *args: reference.forward(case, Operands(*args))
    found, wanted = (
      jax.jit(functools.partial(everything, run))(*inputs) for run in (ours, plain)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
      assert a.dtype == jnp.float64
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_some_of_the_epilogue_and_dtypes_of_gradients():
  x, w = jnp.ones((1, 3, 3, 2), jnp.bfloat16), jnp.ones((2, 2, 2, 3), jnp.bfloat16)
  scale, shift = jnp.full(3, 0.5, jnp.bfloat16), jnp.ones(3, jnp.float16)
  run = lambda x, w, scale: conv2d(x, w, scale=scale, shift=shift).sum()
  dtypes = [g.dtype for g in jax.grad(run, argnums=(0, 1, 2))(x, w, scale)]
  assert dtypes == [jnp.bfloat16] * 3
  run = lambda shift: conv2d(x, w, shift=shift, activation='relu').sum()
  slope = jax.grad(run)(-shift)
  assert slope.dtype == jnp.float16
  np.testing.assert_array_equal(slope, [9, 9, 9])


@pytest.mark.parametrize(
  'activation, kept',
  ((None, 'x w scale'), ('relu', 'x w scale y'), ('silu', 'x w scale shift residual')),
)
def test_only_what_the_gradients_read_is_kept(activation, kept):
  shapes = {
    'x': (2, 5, 5, 3), 'w': (3, 2, 3, 4), 'scale': (4,), 'shift': (4,),
    'residual': (2, 5, 5, 4),
  }  # fmt: skip
  values = {name: jnp.ones(shape) for name, shape in shapes.items()}
  run = lambda values: conv2d(
    values['x'], values['w'], scale=values['scale'], shift=values['shift'],
    residual=values['residual'], activation=activation, implementation='xla',
  )  # fmt: skip
  _, pull = jax.vjp(run, values)
  saved = sorted(v.shape for v in jax.tree.leaves(pull))
  assert saved == sorted((shapes | {'y': (2, 5, 5, 4)})[name] for name in kept.split())


# Transformations.


@pytest.mark.parametrize('implementation', ('onednn', 'xla', 'reference'))
def test_under_jit_vmap_and_in_a_scan(implementation, request):
  if implementation == 'onednn':
    request.getfixturevalue('onednn')
  x, w, *_ = arrays((2, 5, 4, 3), (3, 2, 3, 3), {})

  def slopes(x, ws, implementation=implementation):
    def total(w):
      step = lambda x, _: (
        jnp.tanh(conv2d(x, w, activation='relu', implementation=implementation)), 0
      )  # fmt: skip
      return jax.lax.scan(step, x, None, length=3)[0].sum()

    return jax.vmap(jax.value_and_grad(total))(ws)

  ws = np.stack([w, 0.5 * w])
  narrow = np.float32
  found = jax.jit(slopes)(x.astype(narrow), ws.astype(narrow))
  with jax.enable_x64(True):
    wanted = jax.jit(functools.partial(slopes, implementation='reference'))(x, ws)
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_without_jit_and_of_nothing():
  x, w = jnp.ones((0, 4, 4, 2)), jnp.ones((3, 3, 2, 3))
  y = conv2d(x, w, shift=jnp.ones(3), activation='gelu')
  assert y.shape == (0, 4, 4, 3)
  np.testing.assert_array_equal(jax.grad(loss, 1)(x, w), jnp.zeros_like(w))
  # No pixel, but zeros around it: the output is the shift.
  pads = ((2, 2), (0, 0))
  y = conv2d(x[:0].reshape(1, 0, 4, 2), w, padding=pads, shift=jnp.ones(3))
  np.testing.assert_array_equal(y, np.ones((1, 2, 2, 3)))


def test_conv1d_is_conv2d_of_one_row():
  x, w, scale, shift, *_ = arrays(
    (2, 9, 1, 4), (3, 1, 2, 6), dict(groups=2), np.float32
  )
  residual = np.ones((2, 5, 6), np.float32)
  options = dict(groups=2, scale=scale, shift=shift, activation='relu')
  found = conv1d(
    x[:, :, 0], w[:, 0], stride=2, dilation=2, residual=residual, **options
  )
  wanted = conv2d(
    x, w, stride=(2, 1), dilation=(2, 1), residual=residual[:, :, None], **options
  )
  np.testing.assert_allclose(found, wanted[:, :, 0], rtol=1e-5, atol=1e-5)


def test_the_transpose_and_its_derivatives():
  x_shape, w_shape, options = SWEEP[2]
  x, w, *_, dy = arrays(x_shape, w_shape, options)
  options = {**options, 'implementation': 'xla'}
  with jax.enable_x64(True):
    run = lambda y, w: conv2d_transpose(y, w, x_shape[1:3], **options)
    plain = lambda y, w: jax.vjp(lambda x: conv2d(x, w, **options), x)[1](y)[0]
    both = []
    for function in (run, plain):
      total = lambda y, w, f=function: jnp.sin(f(y, w)).sum()
      slopes = jax.jit(jax.grad(total, argnums=(0, 1)))
      both.append((function(dy, w), *slopes(dy, w)))
    for a, b in zip(*both, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    # <y, conv x> = <transpose y, x>.
    one, other = (dy * conv2d(x, w, **options)).sum(), (run(dy, w) * x).sum()
    np.testing.assert_allclose(one, other, rtol=1e-10)
  with pytest.raises(ValueError, match=r'y=.* must be \(1, 5, 2, 6\) for size='):
    conv2d_transpose(dy, w, (11, 8), **options)
  with pytest.raises(ValueError, match='4 axes each'):
    conv2d_transpose(dy[0], w, (9, 8))
