"""Attention spread over eight simulated devices, by heads and by tokens.

The devices live in a process of their own, which prints what the tests below look at.
"""

import functools
import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests import simulated

ROOT = pathlib.Path(__file__).parents[2]
RINGS = ('all', 'causal', 'segments')
SHARDED = ('plain', 'shared', 'dropout')


@functools.cache
def found():
  command = [sys.executable, '-W', 'error', '-m', 'tests.kernels.attention_ring_test']
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=simulated.environment(8),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize('name', RINGS)
def test_a_ring_is_attention_over_all_tokens(name):
  here = found()[name]
  assert len(here['errors']) == 4 and max(here['errors']) < 1e-10


@pytest.mark.parametrize('name', RINGS)
def test_a_ring_passes_keys_and_values_together_and_gathers_nothing(name):
  here = found()[name]
  moved = 2 if name == 'segments' else 1  # Keys with values; segments.
  assert here['forward'] == {'permutes': moved * 7, 'gathers': 0, 'sums': 0}
  # Their gradients make one step more, home; keys and values go round again.
  assert here['both'] == {'permutes': 2 * moved * 7 + 8, 'gathers': 0, 'sums': 0}


def test_second_derivatives_of_a_ring():
  assert max(found()['second']) < 1e-10


def test_a_ring_of_several_axes_and_checked_types():
  assert max(found()['mesh']) < 1e-10


def test_a_ring_of_bfloat16_merges_in_float32():
  """1 on one device and 1 + ulp on seven: merged in bfloat16 it would stay 1 there."""
  assert found()['bfloat16'] == [1 + 2**-7]


def test_a_causal_ring_wants_as_many_keys_as_queries():
  assert 'causal with 2 queries and 4 keys' in found()['lengths']


@pytest.mark.parametrize('name', SHARDED)
def test_sharded_is_the_same_with_no_array_gathered(name):
  here = found()[f'sharded_{name}']
  assert max(here['errors']) < 1e-12
  assert here['forward'] == {'permutes': 0, 'gathers': 0, 'sums': 0}
  assert here['both']['gathers'] == here['both']['permutes'] == 0
  # Gradients of what all devices share: keys, or a bias.
  assert (here['both']['sums'] > 0) == (name != 'plain')


def test_sharded_says_what_does_not_divide():
  assert '3 heads of queries over 4 shards' in found()['heads']


def main():
  import jax

  jax.config.update('jax_enable_x64', True)
  import jax.numpy as jnp
  from jax.sharding import AxisType, NamedSharding
  from jax.sharding import PartitionSpec as P
  import numpy as np

  from kernels.attention import flash_attention
  from kernels.attention.ring import ring_attention
  from kernels.attention.sharding import sharded

  rng = np.random.default_rng(0)
  make_mesh = lambda sizes, names: jax.make_mesh(
    sizes, names, axis_types=(AxisType.Auto,) * len(names)
  )
  ring_mesh, mesh = make_mesh((8,), ('s',)), make_mesh((2, 4), ('data', 'model'))

  def counts(program):
    text = program.as_text()
    count = lambda name: len(re.findall(rf' {name}(?:-start)?\(', text))
    return {
      'permutes': count('collective-permute'),
      'gathers': count('all-gather') + count('all-to-all'),
      'sums': count('all-reduce') + count('reduce-scatter'),
    }

  def inputs(b=1, length=16, h=2, g=2, k=4):
    return tuple(
      jnp.asarray(rng.normal(size=(b, length, n, k)), jnp.float64) for n in (h, g, g)
    )

  def both(function, weights):
    loss = lambda *args: jnp.sum(weights * function(*args))
    argnums = lambda args: tuple(range(len(args)))
    return lambda *args: (function(*args), *jax.grad(loss, argnums(args))(*args))

  def errors(a, b):
    return [float(jnp.abs(x - y).max()) for x, y in zip(a, b, strict=True)]

  def ring(mesh, spec, segment=None, check_vma=False, **options):
    specs = (spec,) * 3 + (() if segment is None else (P(spec[0], spec[1]),))

    def local(q, k, v, *segment):
      ids = segment[0] if segment else None
      return ring_attention(q, k, v, axis='s', segment_ids=ids, **options)

    call = jax.shard_map(
      local, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=check_vma
    )
    return lambda q, k, v: call(q, k, v, *([] if segment is None else [segment]))

  segment = jnp.asarray(np.sort(rng.integers(0, 3, size=(1, 16))), jnp.int32)
  spec, out = P(None, 's'), {}
  for name, options, heads in (
    ('all', {'softmax_scale': 0.9}, {}),
    ('causal', {'causal': True}, {}),
    ('segments', {'segment_ids': segment, 'soft_cap': 0.5}, {'h': 4}),
  ):
    q, k, v = inputs(**heads)
    placed = [jax.device_put(x, NamedSharding(ring_mesh, spec)) for x in (q, k, v)]
    weights = rng.normal(size=q.shape)
    rest = {n: x for n, x in options.items() if n != 'segment_ids'}
    mine = ring(ring_mesh, spec, options.get('segment_ids'), **rest)
    whole = functools.partial(flash_attention, **options, implementation='reference')
    passes = jax.jit(both(mine, weights)).lower(*placed).compile()
    out[name] = {
      'errors': errors(passes(*placed), jax.jit(both(whole, weights))(q, k, v)),
      'forward': counts(jax.jit(mine).lower(*placed).compile()),
      'both': counts(passes),
    }

  def second(function):
    first = jax.grad(lambda *args: jnp.sin(function(*args)).sum(), (0, 1, 2))
    square = lambda *args: sum((g**2).sum() for g in first(*args))
    return jax.jit(jax.grad(square, (0, 1, 2)))

  q, k, v = inputs()
  whole = functools.partial(flash_attention, causal=True, implementation='reference')
  mine = ring(make_mesh((2,), ('s',)), spec, causal=True)
  out['second'] = errors(second(mine)(q, k, v), second(whole)(q, k, v))

  axes = make_mesh((2, 2, 2), ('data', 's', 'model'))
  q, k, v = inputs(b=2, length=8)
  weights = rng.normal(size=q.shape)
  mine = ring(axes, P('data', 's', 'model'), causal=True, check_vma=True)
  out['mesh'] = errors(
    jax.jit(both(mine, weights))(q, k, v), both(whole, weights)(q, k, v)
  )

  ones = jnp.ones((1, 16, 2, 4), jnp.bfloat16)
  values = ones.at[:, 2:].add(2**-7)
  o = jax.jit(ring(ring_mesh, spec))(0 * ones, ones, values)
  out['bfloat16'] = np.unique(np.asarray(o, np.float32)).tolist()
  try:
    q, k, v = inputs(length=16)
    ring(ring_mesh, spec, causal=True)(q, *(jnp.tile(x, (1, 2, 1, 1)) for x in (k, v)))
  except ValueError as error:
    out['lengths'] = str(error)

  key = jax.random.key(7)
  ids = jnp.asarray(rng.integers(0, 2, size=(4, 8)), jnp.int32)
  spread = sharded(mesh, batch_axes='data', head_axes=('model',))
  for name, options, heads, bias_shape in (
    ('plain', {'causal': True, 'segment_ids': ids}, (8, 4), None),
    ('shared', {'window': 3}, (4, 1), (1, 4, 8, 8)),
    (
      'dropout',
      {'dropout_rate': 0.4, 'dropout_key': key, 'segment_ids': ids},
      (8, 4),
      (4, 1, 1, 8),
    ),
  ):
    args = inputs(b=4, length=8, h=heads[0], g=heads[1])
    weights = rng.normal(size=args[0].shape)
    kv = P('data', None, 'model') if heads[1] > 1 else P('data')
    specs = [P('data', None, 'model'), kv, kv]
    if bias_shape:
      args += (jnp.asarray(rng.normal(size=bias_shape)),)
      sizes = zip(bias_shape, ('data', 'model', None, None), strict=True)
      specs.append(P(*(axis if n > 1 else None for n, axis in sizes)))
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    placed = [jax.device_put(x, s) for x, s in zip(args, shardings, strict=True)]

    def of(function, options=options):
      return lambda q, k, v, bias=None: function(q, k, v, bias=bias, **options)

    mine, whole = of(spread), of(flash_attention)
    passes = jax.jit(both(mine, weights), out_shardings=(shardings[0], *shardings))
    passes = passes.lower(*placed).compile()
    out[f'sharded_{name}'] = {
      'errors': errors(passes(*placed), jax.jit(both(whole, weights))(*args)),
      'forward': counts(jax.jit(mine).lower(*placed).compile()),
      'both': counts(passes),
    }
  try:
    spread(*inputs(b=4, h=3, g=3))
  except ValueError as error:
    out['heads'] = str(error)
  print(json.dumps(out))


if __name__ == '__main__':
  main()
