"""Who computes a case: what is asked for, what a table says, and clear refusals."""

import json
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh
import pytest

from kernels import dispatch
from kernels.attention import UnsupportedKernel, api, explain, flash_attention
from kernels.dispatch import Backend, Refusal


class Case(NamedTuple):
  """Of an operation that is made up."""

  size: int = 8
  dtype: str = 'float32'
  window: tuple[int, int] | None = None


def refuse_odd(case):
  if case.size % 2:
    return Refusal(f'size={case.size} is odd', f'size={case.size + 1}')
  return None


BACKENDS = {
  'fast': Backend('fast', ('cuda',), refuse_odd, {}),
  'simulated': Backend('simulated', ('cuda',), refuse_odd, {}, simulated=True),
  'plain': Backend('plain', dispatch.PLATFORMS, lambda case: None, {}),
}
LIBRARIES = {'cpu': ('plain',), 'cuda': ('fast', 'plain'), 'tpu': ('plain',)}


def choose(case, implementation, platform='cuda', rows=()):
  return dispatch.choose(
    'making', case, BACKENDS, implementation, platform, LIBRARIES, rows
  )


def test_a_named_one_obeys_or_says_why_not():
  assert choose(Case(), 'fast').name == 'fast'
  assert choose(Case(), 'plain').name == 'plain'
  with pytest.raises(UnsupportedKernel) as raised:
    choose(Case(size=7), 'fast')
  assert raised.value.refusals == {'fast': Refusal('size=7 is odd', 'size=8')}
  assert 'making of Case(size=7' in str(raised.value)
  assert 'fast: size=7 is odd (nearest: size=8)' in str(raised.value)
  with pytest.raises(UnsupportedKernel, match=r'it is not for tpu \(nearest: cuda\)'):
    choose(Case(), 'fast', 'tpu')


def test_a_simulated_one_runs_on_a_cpu_too():
  assert choose(Case(), 'simulated', 'cpu').name == 'simulated'
  with pytest.raises(UnsupportedKernel):
    choose(Case(), 'simulated', 'tpu')


def test_several_are_tried_in_order():
  assert choose(Case(), ('plain', 'fast')).name == 'plain'
  choice = choose(Case(size=7), ('fast', 'plain'))
  assert choice.name == 'plain' and list(choice.refusals) == ['fast']
  with pytest.raises(UnsupportedKernel) as raised:
    choose(Case(size=7), ('fast', 'simulated'))
  assert list(raised.value.refusals) == ['fast', 'simulated']


def test_an_unknown_name_lists_those_that_are():
  message = "implementation='triton' is not allowed: must be some of auto, fast, sim"
  with pytest.raises(ValueError, match=message):
    choose(Case(), 'triton')
  with pytest.raises(ValueError, match=message):
    choose(Case(size=7), ('fast', 'triton'))


def row(implementation, **match):
  return dispatch.Row(match, implementation, {'block': 64}, {'ms': 1.5})


def test_auto_takes_the_library_and_what_a_row_says_is_faster():
  assert choose(Case(), 'auto').name == 'fast'
  assert choose(Case(size=7), 'auto').name == 'plain'
  rows = (row('simulated', dtype='bfloat16'), row('plain', size=[4, 8]))
  choice = choose(Case(), 'auto', rows=rows)
  assert (choice.name, choice.config) == ('plain', {'block': 64})
  assert choice.text == "plain: measured: {'ms': 1.5}"
  assert choose(Case(size=10), 'auto', rows=rows).name == 'fast'
  assert choose(Case(dtype='bfloat16'), 'auto', rows=rows).name == 'simulated'
  # A row whose winner refuses, or is of another version, is passed over and told.
  choice = choose(Case(size=7), 'auto', rows=(row('simulated', size=7),))
  assert choice.name == 'plain' and choice.config == {}
  assert choice.text.splitlines() == [
    'plain: the library of cuda; no measured row',
    '  not simulated: size=7 is odd (nearest: size=8)',
    '  not fast: size=7 is odd (nearest: size=8)',
  ]
  choice = choose(Case(), 'auto', rows=(row('gone', size=8),))
  assert choice.name == 'fast' and 'not gone: there is no such' in choice.text


def test_rows_match_values_ranges_and_tuples():
  matches = lambda case, **match: dispatch.matches(row('plain', **match), case)
  assert matches(Case(), size=8, dtype='float32') and not matches(Case(), size=9)
  assert matches(Case(), size=[8, 9]) and not matches(Case(), size=[9, 20])
  assert matches(Case(window=(3, 0)), window=[3, 0])
  assert not matches(Case(window=(3, 1)), window=[3, 0])
  assert matches(Case(), window=None) and not matches(Case(), window=[0, 9])


def test_auto_follows_a_table_of_the_device(tmp_path, monkeypatch):
  kind = jax.devices()[0].device_kind
  file = tmp_path / dispatch.file_name(kind)
  found = {
    'match': {'head_dim': 4, 'q_len': [1, 8]}, 'implementation': 'reference',
    'config': {}, 'evidence': {'ratio': 1.2, 'date': '2026-11-21'},
  }  # fmt: skip
  file.write_text(json.dumps({'rows': [found]}), encoding='utf-8')
  operation = api.OPERATION._replace(tuned=tmp_path)
  monkeypatch.setattr(api, 'OPERATION', operation)
  x = lambda n: jax.ShapeDtypeStruct((1, n, 1, 4), jnp.float32)
  assert explain(x(8), x(8), x(8)).startswith("reference: measured: {'ratio': 1.2")
  assert explain(x(9), x(9), x(9)).startswith('xla: the library of cpu')
  assert dispatch.file_name('NVIDIA H100 80GB-HBM3') == 'nvidia_h100_80gb_hbm3.json'
  assert dispatch.table(tmp_path, 'no such device') == ()


def test_auto_follows_the_table_of_the_device_that_is_traced_for(tmp_path, monkeypatch):
  found = {
    'match': {'head_dim': 64}, 'implementation': 'mosaic_tpu',
    'config': {'block_q': 256}, 'evidence': {'ratio': 1.3},
  }  # fmt: skip
  (tmp_path / 'tpu_v9.json').write_text(json.dumps({'rows': [found]}), encoding='utf-8')
  operation = api.OPERATION._replace(tuned=tmp_path)
  monkeypatch.setattr(api, 'OPERATION', operation)
  x = jax.ShapeDtypeStruct((1, 1024, 1, 64), jnp.bfloat16)
  here = explain(x, x, x)
  assert here.startswith('xla: the library of cpu')
  device = AbstractDevice(device_kind='TPU v9', num_cores=1, platform='tpu')
  with jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device)):
    assert explain(x, x, x).startswith("mosaic_tpu: measured: {'ratio': 1.3")
    assert explain(x, x, x, platform='cpu') == here
  assert explain(x, x, x) == here


X = jax.ShapeDtypeStruct((2, 16, 4, 8), jnp.float32)
LOW = jax.ShapeDtypeStruct((2, 16, 4, 8), jnp.bfloat16)


def test_explain_prints_the_choice_and_every_rejection():
  assert explain(X, X, X, platform='tpu') == 'xla: the library of tpu; no measured row'
  assert explain(X, X, X, platform='cuda').splitlines() == [
    'xla: the library of cuda; no measured row',
    '  not cudnn: dtype=float32 is not bfloat16 or float16 (nearest: bfloat16)',
  ]
  assert explain(LOW, LOW, LOW, platform='cuda').startswith('cudnn: the library')
  text = explain(X, X, X, implementation=('cudnn', 'onednn', 'xla'))
  assert text.startswith('xla: asked for\n  not cudnn: dtype')
  assert 'not onednn: kernels.onednn is not usable: DLX_ONEDNN=off' in text


REFUSED = (
  ({'segment_ids': jax.ShapeDtypeStruct((2, 16), jnp.int32)}, 'no segment_ids'),
  ({'soft_cap': 2.0}, 'no soft_cap'),
  ({'dropout_rate': 0.1, 'dropout_key': 0}, 'no dropout'),
  ({'return_lse': True}, 'no gradient of the log sums'),
)
BIAS = jax.ShapeDtypeStruct((1, 4, 16, 16), jnp.float32)


@pytest.mark.parametrize('options, message', (
  *REFUSED,
  ({'window': (3, 1)}, r'looks ahead \(nearest: window=\(3, 0\) or causal\)'),
  ({'window': 3, 'causal': True, 'bias': BIAS}, 'a window together with a bias'),
  (
    {'bias': jax.ShapeDtypeStruct((1, 1, 1, 16), jnp.float32)},
    r'nearest: bias=\(1, 1, 16, 16\)',
  ),
))  # fmt: skip
def test_cudnn_refuses_what_it_has_not(options, message):
  with pytest.raises(UnsupportedKernel, match=message):
    explain(LOW, LOW, LOW, implementation='cudnn', platform='cuda', **options)


@pytest.mark.parametrize('shape, dtype, message', (
  ((2, 16, 4, 20), jnp.bfloat16, r'head_dim=20 is not .* \(nearest: head_dim=24\)'),
  ((2, 16, 4, 264), jnp.float16, r'up to 256 \(nearest: head_dim=256\)'),
  ((2, 16, 4, 8), jnp.float32, 'dtype=float32'),
))  # fmt: skip
def test_cudnn_refuses_widths_and_dtypes(shape, dtype, message):
  x = jax.ShapeDtypeStruct(shape, dtype)
  with pytest.raises(UnsupportedKernel, match=message):
    explain(x, x, x, implementation='cudnn', platform='cuda')


@pytest.mark.parametrize('options, message', (
  *REFUSED, ({'window': 3}, 'no window'), ({'bias': BIAS}, 'no bias'),
))  # fmt: skip
def test_onednn_refuses_what_it_has_not(options, message):
  with pytest.raises(UnsupportedKernel, match=message):
    explain(X, X, X, implementation='onednn', platform='cpu', **options)


def test_cudnn_s_calls_are_lowered_without_a_gpu():
  """One forward and one backward: the second does not compute the first anew."""
  grouped = jax.ShapeDtypeStruct((2, 16, 2, 8), jnp.bfloat16)

  def text(q, k, **options):
    attend = lambda q, k, v, bias: flash_attention(q, k, v, bias=bias, **options)
    loss = lambda *args: attend(*args).astype(jnp.float32).sum()
    bias = (
      jax.ShapeDtypeStruct((1, 4, 16, 16), jnp.float32) if 'bias' in options else None
    )
    options.pop('bias', None)
    traced = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).trace(q, k, k, bias)
    return traced.lower(lowering_platforms=('cuda',)).as_text()

  found = text(LOW, grouped, causal=True, window=(4, 0))
  assert found.count('custom_call @__cudnn$fmhaSoftmax(') == 1
  assert found.count('custom_call @__cudnn$fmhaSoftmaxBackward(') == 1
  assert found.count(r'mask_type\22: \22CAUSAL') == 2
  assert found.count(r'sliding_window_length\22: 5') == 2
  found = text(LOW, LOW, bias=True)
  assert found.count('custom_call @__cudnn$fmhaScaleBiasSoftmax(') == 1
  assert found.count('custom_call @__cudnn$fmhaScaleBiasSoftmaxBackward(') == 1
  assert found.count(r'mask_type\22: \22NO_MASK') == 2
  # Under vmap still one call, of more examples, whatever has rows.
  x = jax.ShapeDtypeStruct((3, 2, 16, 4, 8), jnp.bfloat16)
  slope = jax.grad(lambda *args: flash_attention(*args).astype(jnp.float32).sum())
  for k, axis in ((x, 0), (LOW, None)):
    rows = jax.jit(jax.vmap(slope, in_axes=(0, axis, axis))).trace(x, k, k)
    found = rows.lower(lowering_platforms=('cuda',)).as_text()
    assert found.count('custom_call @__cudnn') == 2
    assert r'dimensions\22: [\226\22, \224\22, \2216\22' in found  # 3 times 2 examples.


def test_one_program_serves_all_platforms():
  x = jnp.ones((1, 16, 2, 8), jnp.bfloat16)
  traced = jax.jit(flash_attention).trace(x, x, x)
  for platform, calls in (('cpu', 0), ('cuda', 1), ('tpu', 0)):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count('custom_call @__cudnn') == calls
  assert flash_attention(x, x, x).shape == jax.jit(flash_attention)(x, x, x).shape


def test_onednn_is_called_where_it_is_built(onednn):
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 9, 3, 8))
  loss = lambda name: (
    lambda q: jnp.sin(flash_attention(q, k, v, causal=True, implementation=name)).sum()
  )
  grad = jax.jit(jax.value_and_grad(loss('auto')))
  assert grad.lower(q).as_text().count('@dlx_onednn_attention') == 2
  close = lambda a, b: jnp.allclose(a, b, rtol=1e-4, atol=1e-5)
  wanted = jax.value_and_grad(loss('reference'))(q)
  assert all(jax.tree.leaves(jax.tree.map(close, grad(q), wanted)))
  second = lambda name: jax.grad(lambda q: (jax.grad(loss(name))(q) ** 2).sum())
  assert close(jax.jit(second('onednn'))(q), jax.jit(second('reference'))(q))


def of(*shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize('changed, message', (
  ({'q': of(16, 4, 8)}, r'q=\(16, 4, 8\) is not allowed: must be 4 axes'),
  ({'v': of(2, 16, 4, 9)}, 'v=.* must be the shape of k'),
  ({'q': of(3, 16, 4, 8)}, r'k=.* must be \(3, M, G, 8\)'),
  ({'k': of(2, 0, 4, 8), 'v': of(2, 0, 4, 8)}, 'k=.* none of size 0'),
  ({'q': of(2, 16, 6, 8)}, 'k=.* that divides the 6 of q'),
  ({'q': of(2, 16, 4, 8, dtype=jnp.bfloat16)}, 'dtype of q, k, v=bfloat16, float32'),
  ({'kv_segment_ids': of(2, 16, dtype=jnp.int32)}, 'kv_segment_ids=.* together with'),
  (
    {'segment_ids': of(2, 9, dtype=jnp.int32), 'q': of(2, 9, 4, 8)},
    'kv_segment_ids=None .* together with segment_ids',
  ),
  ({'segment_ids': of(2, 16)}, r'segment_ids=float32\(2, 16\) .* int32 of shape'),
  ({'segment_ids': of(2, 9, dtype=jnp.int32)}, r'segment_ids=int32\(2, 9\)'),
  ({'bias': of(16, 16)}, r'bias=\(16, 16\) .* must be sizes 1 or those of'),
  ({'bias': of(1, 2, 16, 16)}, 'bias=.* must be sizes 1 or those of'),
  ({'window': -1}, r'window=\(-1, -1\) .* 0 or more'),
  ({'window': (1, 2, 3)}, 'window=.* one or two numbers'),
  ({'soft_cap': 0.0}, 'soft_cap=0.0 is not allowed: must be above 0'),
  ({'dropout_rate': 1.0}, r'dropout_rate=1.0 is not allowed: must be in \[0, 1\)'),
))  # fmt: skip
def test_a_bad_argument_is_named_in_one_line(changed, message):
  with pytest.raises(ValueError, match=message) as raised:
    flash_attention(**({'q': X, 'k': X, 'v': X} | changed))
  assert '\n' not in str(raised.value) and len(str(raised.value)) < 120


def test_kernels_that_nobody_asks_for_are_not_imported():
  code = (
    'import sys, kernels.attention; print([m for m in sys.modules if "pallas" in m])'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert done.stdout.strip() == '[]', done.stderr
