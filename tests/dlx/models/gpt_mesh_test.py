"""GPT on meshes of simulated devices: values and gradients are those of one device.

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

ROOT = pathlib.Path(__file__).parents[3]
# Mesh, and the fields of a model; {} is plain attention with learned positions.
GROUPED = {'num_kv_heads': 2, 'positions': 'rotary', 'pad_vocabulary_to': 4}
CASES = {
  'tensor': ('tensor=2', {}),
  'both': ('fsdp=2,tensor=2', {}),
  'sequence': ('sequence=2', {}),
  'long_ring': ('sequence=4', GROUPED | {'remat': 'full'}),
  'grouped': ('tensor=2', GROUPED | {'remat': 'dots'}),
  # Four devices for two heads of keys: each pair of devices has the same one.
  'repeated': ('tensor=4', GROUPED),
  'all': ('fsdp=2,sequence=2,tensor=2', GROUPED),
  'dropout': ('data=2,tensor=2', {'num_kv_heads': 1, 'dropout': 0.5}),
  'odd': ('sequence=4', {'length': 6}),
  # Biases and windows do not go round: each device of the axis has all keys.
  'biased': (
    'fsdp=2,sequence=2,tensor=2',
    {'positions': 'relative', 'window': 5, 'mlp': 'swiglu', 'qk_norm': True},
  ),
  'capped': ('sequence=2,tensor=2', {'positions': 'sinusoidal', 'soft_cap': 2.0}),
}


# The others are slow: each is compiled twice, for one device and for its mesh.
FAST = ('tensor', 'sequence')
slow = pytest.mark.slow
EVERY = [pytest.param(n, id=n, marks=[slow] * (n not in FAST)) for n in CASES]


@functools.cache
def found(fast=True):
  names = [name for name in CASES if (name in FAST) == fast]
  command = [
    sys.executable,
    '-W',
    'error',
    '-m',
    'tests.dlx.models.gpt_mesh_test',
    'run',
    *names,
  ]
  done = subprocess.run(
    command,
    cwd=ROOT,
    env=simulated.environment(8),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  said = [line for line in done.stderr.splitlines() if 'rematerialization' in line]
  return {**json.loads(done.stdout.splitlines()[-1]), 'said': said}


def of(name):
  return found(name in FAST)[name]


@pytest.mark.parametrize('name', EVERY)
def test_loss_and_gradients_are_those_of_one_device(name):
  # Float64, two blocks of sums of up to 64 products: relative to the largest gradient
  # some hundred roundings of 1.1e-16.
  assert of(name)['error'] < 1e-12


@pytest.mark.parametrize('name', EVERY)
def test_weights_lie_over_tensor_and_fsdp(name):
  axes = dict(part.split('=') for part in CASES[name][0].split(','))
  parts = int(axes.get('tensor', 1)) * int(axes.get('fsdp', 1))
  shares = of(name)['shares']
  for place in ('mlp/in', 'mlp/out', 'attention/query', 'attention/out'):
    assert shares[place] == parts
  if 'pad_vocabulary_to' in CASES[name][1]:
    assert shares['token'] == parts


@pytest.mark.parametrize(
  ('name', 'size'), [('sequence', 2), pytest.param('long_ring', 4, marks=slow)]
)
def test_keys_go_round_and_are_never_gathered(name, size):
  here = of(name)
  assert here['counts']['collective-permute'] >= size - 1
  # The gradient of learned positions [T, D] is.
  assert here['gathered'] == (['16,16'] if name == 'sequence' else [])
  assert here['counts']['all-to-all'] == 0


@pytest.mark.parametrize('name', ['tensor', pytest.param('grouped', marks=slow)])
def test_a_block_over_tensor_moves_nothing_but_sums(name):
  counts = of(name)['counts']
  assert counts['collective-permute'] + counts['all-to-all'] == 0
  assert counts['all-reduce'] > 0


@pytest.mark.parametrize('fast', [True, pytest.param(False, marks=slow)])
def test_xla_finds_a_way_from_each_placement_to_the_next(fast):
  assert found(fast)['said'] == []


def test_dropping_weights_round_a_ring_is_refused():
  assert re.search(
    r'--config.dropout=0.5 is not allowed on a mesh with sequence=2: must be 0',
    found()['refused'],
  )


@slow
def test_samples_from_the_cache_are_those_of_one_device():
  assert found(fast=False)['cached'] < 1e-12


def main(names):
  import jax

  jax.config.update('jax_enable_x64', True)
  jax.config.update('jax_numpy_rank_promotion', 'raise')
  import jax.numpy as jnp
  from jax.sharding import PartitionSpec as P
  import numpy as np

  from dlx.errors import ConfigError
  from dlx.layers.block_config import BlockConfig
  from dlx.models.gpt import GPT, PLACEMENT
  from dlx.run import sharding
  from dlx.state import leaves_by_path
  from dlx.tasks.language_modelling import next_token_loss

  rng = np.random.default_rng(0)
  text_BW = jnp.asarray(rng.integers(0, 11, (4, 17)))

  def model_of(length=16, **fields):
    del length
    own = {name: fields.pop(name) for name in list(fields) if hasattr(GPT, name)}
    dtypes = {'dtype': 'float64', 'param_dtype': 'float64'}
    block = BlockConfig(width=16, num_heads=4, **dtypes, **fields)
    return GPT(11, 16, 2, block, init_scale=0.3, **own)

  def on(text, fields):
    """(loss, gradients), program and parameters on a mesh of the first devices."""
    model = model_of(**fields)
    length = fields.get('length', 16)
    batch = {'input': text_BW[:, :length], 'target': text_BW[:, 1 : length + 1]}
    axes = dict(part.split('=') for part in text.split(','))
    devices = int(np.prod([int(size) for size in axes.values()]))
    mesh = sharding.make_mesh(text, jax.devices()[:devices])
    params = initial(tuple(fields.items()))
    places = sharding.state_shardings(mesh, params, PLACEMENT)
    tokens = sharding.on_mesh(mesh, P(('data', 'fsdp'), 'sequence'), (4, length))

    def loss(params, batch):
      logits = model.apply(
        {'params': params},
        batch['input'],
        train=model.block.dropout > 0,
        rngs={'dropout': jax.random.key(1)},
      )
      return next_token_loss(logits, batch).sum()

    step = sharding.traced_under(mesh, jax.value_and_grad(loss))
    params, batch = jax.device_put((params, batch), (places, tokens))
    program = jax.jit(step, out_shardings=(None, places)).lower(params, batch).compile()
    return program(params, batch), program.as_text(), params

  @functools.cache
  def initial(fields):
    model = model_of(**dict(fields))
    init = lambda: model.init(jax.random.key(0), text_BW[:, :16], train=False)
    return jax.tree.map(np.asarray, jax.jit(init)()['params'])

  @functools.cache
  def alone(fields):
    return jax.tree.map(np.asarray, on('data=1', dict(fields))[0])

  def error(a, b):
    """Largest difference over the largest number; the slope of a key's bias is 0."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    gap = max(np.abs(np.asarray(x) - y).max() for x, y in pairs)
    return float(gap / max(np.abs(y).max() for _, y in pairs))

  def counts(text):
    names = ('collective-permute', 'all-gather', 'all-to-all', 'all-reduce')
    return {n: len(re.findall(rf' {n}(?:-start)?\(', text)) for n in names}

  def short(path):
    path = path.removeprefix('transformer/blocks/')
    return path.removesuffix('/kernel').removesuffix('/embedding')

  found = {}
  for name in names:
    mesh, fields = CASES[name]
    got, program, params = on(mesh, fields)
    # What is computed twice is the same: the model that keeps everything is compared.
    plain = tuple((k, v) for k, v in fields.items() if k != 'remat')
    found[name] = {
      'error': max(error(x, y) for x, y in zip(got, alone(plain), strict=True)),
      'counts': counts(program),
      'gathered': re.findall(r'= f64\[([\d,]*)\]\S* all-gather', program),
      'shares': {
        short(path): x.size // int(np.prod(x.sharding.shard_shape(x.shape)))
        for path, x in leaves_by_path(params).items()
      },
    }
  try:
    on('sequence=2', {'dropout': 0.5})
  except ConfigError as e:
    found['refused'] = str(e)
  if set(names) <= set(FAST):
    print(json.dumps(found))
    return

  model = model_of(**GROUPED)
  params = {'params': initial(tuple(GROUPED.items()))}

  def extend(params, text_BT):
    cache, parts = model.empty_cache(4), []
    for part in (text_BT[:, :8], text_BT[:, 8:9], text_BT[:, 9:]):
      logits, cache = model.apply(params, part, cache, method='extend')
      parts.append(logits[..., :11])
    return jnp.concatenate(parts, 1)

  mesh = sharding.make_mesh('fsdp=2,sequence=2,tensor=2')
  places = sharding.state_shardings(mesh, params, PLACEMENT)
  tokens = jax.device_put(text_BW[:, :16], sharding.on_mesh(mesh, P('fsdp')))
  wide = jax.jit(sharding.traced_under(mesh, extend))
  found['cached'] = error(
    wide(jax.device_put(params, places), tokens),
    np.asarray(jax.jit(extend)(params, text_BW[:, :16])),
  )
  print(json.dumps(found))


if __name__ == '__main__':
  main(sys.argv[2:])
