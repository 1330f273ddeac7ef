"""What dlx does in the first steps of a workload of the bench, for peers to repeat."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx import diffusion, optim
from dlx.models.seq2seq_config import Seq2SeqConfig
from dlx.models.unet import UNetConfig
from dlx.state import TrainState, stream
from launch.benchmarks import workloads

STEPS = 5
# The same maths, compiled two to four times as fast.
QUICK = {'compiler_options': {'xla_backend_optimization_level': 0}}
fold = jax.random.fold_in

# Sizes alone: small, so that compiling takes most of the time.
SMALL = {
  'mlp': {'features': (16, 8)},
  'cnn': {'features': (4, 8), 'dense': 16},
  # At 10 times this rate, the workload's, float32 losses drift 1e-3 apart in 5 steps
  # and float64 ones 5e-9. A large decay is seen to be there.
  'resnet18': {'width': 8, 'lr': 0.02, 'weight_decay': 0.1},
  'densenet': {'depth': 10, 'growth': 4, 'lr': 0.02, 'weight_decay': 0.1},
  'convnext': {'blocks': (1, 1), 'features': (4, 8), 'weight_decay': 0.1},
  # At four times this rate rounding of the input carries one unit over the kink of a
  # ReLU6: changes differ by 5e-4, and PyTorch's from its own with weights off by 6e-8.
  'mobilenet': {'width': 0.1, 'depth': 0.1, 'lr': 1e-3, 'weight_decay': 0.1},
  'lstm': {'embedding': 8, 'features': (8,), 'bucket_lengths': (16,)},
  'text_cnn': {
    'embedding': 8,
    'widths': (2, 3),
    'filters': 6,
    'bucket_lengths': (16,),
    'weight_decay': 0.1,
  },
  'seq2seq': {
    'net': Seq2SeqConfig(cell='lstm', embedding=8, features=8, bidirectional=False),
    'max_length': 7,
    'bucket_lengths': (),
  },
  'char_gpt': {'num_layers': 2, 'width': 16, 'context': 16},
  'char_gpt_large': {'num_layers': 2, 'width': 48, 'context': 16},
  'vit': {'num_layers': 2, 'width': 24},
  'gcn': {},
  'gat': {'features': 4, 'heads': 2},
  'vae': {'features': (16,), 'latents': 4},
  'dcgan': {'noise': 8, 'generator_width': 4, 'discriminator_width': 4},
  'ddpm': {'unet': UNetConfig(channels=(8, 16), patch=1)},
}


def rates(name, config):
  """The learning rates of the first steps, from the schedule of the experiment."""
  total = config.num_steps
  kind = workloads.WORKLOADS[name].experiment
  rise_and_fall = ('mlp', 'cnn', 'resnet', 'densenet', 'convnext', 'mobilenet')
  if kind in (*rise_and_fall, 'translation'):
    schedule = optim.one_cycle(config.lr, total)
  elif kind in ('gcn', 'gat'):
    schedule = optim.constant(config.lr)
  elif kind in ('char_gpt', 'vit'):
    final = getattr(config, 'final_fraction', 0.0)
    rise = config.warmup_fraction * total
    schedule = optim.warmup_cosine(config.lr, total, rise, final)
  elif kind == 'ddpm':
    rise = min(config.warmup_steps, total // 2)
    schedule = optim.warmup_cosine(config.lr, total, rise)
  else:
    schedule = optim.cosine(config.lr, total)
  return [float(schedule(i)) for i in range(STEPS)]


def noise(name, config, state_rng, step, batch):
  """What the train step of the experiment draws, by its own keys."""
  rng = fold(state_rng, step)
  size = config.batch_size
  if name == 'vae':
    keys_B = jax.vmap(lambda i: fold(fold(rng, 0), i))(jnp.arange(size))
    draw = lambda key: jax.random.normal(jax.random.split(key, 2)[1], (config.latents,))
    return {'z': jax.vmap(draw)(keys_B)}
  if name == 'dcgan':
    return {'z': jax.random.normal(fold(rng, 0), (size, config.noise))}
  if name == 'ddpm':
    t_key, eps_key = jax.random.split(stream(rng, 'noise'))
    return {
      't': diffusion.stratified_times(t_key, size, config.diffusion.num_steps),
      'eps': jax.random.normal(eps_key, batch['image'].shape, jnp.float32),
    }
  return {}


class Run(NamedTuple):
  """Some steps of dlx.

  Attributes:
    fields: of the Config.
    first: the state before the steps.
    last: the state after them.
    batches: of the steps.
    draws: the noise of each.
    losses: of each.
    rates: of each.
  """

  fields: dict[str, Any]
  first: TrainState
  last: TrainState
  batches: list[dict[str, np.ndarray]]
  draws: list[dict[str, np.ndarray]]
  losses: list[float]
  rates: list[float]


def build(name, dtype):
  """The fields of a small workload, and the workload."""
  params = 'float32' if dtype == 'bfloat16' else dtype
  dtypes = {'param_dtype': params, 'compute_dtype': dtype}
  fields = {'num_steps': 20, 'batch_size': 8, **dtypes, **SMALL[name]}
  return fields, workloads.build(name, **fields)


@functools.lru_cache
def initial(name):
  """The state before the first step, in float32: compiling it takes the longest."""
  return jax.jit(build(name, 'float32')[1].experiment.init, **QUICK)(jax.random.key(0))


def run_dlx(name, dtype):
  """The first steps, from dlx's own weights (float32) or from these moved a little."""
  fields, built = build(name, dtype)
  batches = workloads.batches(built, STEPS)
  first = initial(name)
  with jax.enable_x64(dtype == 'float64'):
    if dtype == 'float64':
      first = first._replace(
        params=moved(first.params), opt_state=jax.tree.map(widened, first.opt_state)
      )
    draw = lambda i, batch: noise(name, built.config, first.rng, i, batch)
    draw, step = (jax.jit(f, **QUICK) for f in (draw, built.experiment.train_step))
    state, found, draws = first, [], []
    for i, batch in enumerate(batches):
      draws.append(jax.tree.map(np.asarray, draw(i, batch)))
      state, sums = step(state, batch)
      found.append(float(sums['loss'].total / sums['loss'].count))
  return Run(fields, first, state, batches, draws, found, rates(name, built.config))


def widened(x):
  return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


def moved(params):
  """Smaller weights, none of which is 0: epsilons count, and no layer hides another."""
  rng = np.random.default_rng(0)
  move = lambda x: 0.1 * widened(x) + 0.02 * rng.standard_normal(x.shape)
  return jax.tree.map(move, params)
