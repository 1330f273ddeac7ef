"""What a stack of restricted Boltzmann machines over images reports and can do.

declared   its reconstruction errors
sums       the same of a batch
functions  encode, reconstruct and sample
figures    filters, reconstructions and samples
"""

from typing import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx import figures as draw
from dlx.data.dataset import Dataset
from dlx.data.sets.images import ImageData
from dlx.experiment import Field, Figure, Function
from dlx.models import rbm
from dlx.precision import at_least_float32
from dlx.state import Array, Batch, Mean, Metric, TrainState, mean

Stack = Callable[[TrainState], Sequence[rbm.Machine]]
SHOWN = 40  # Hidden units whose weights are drawn, and samples.


def declared(depth: int) -> dict[str, Metric]:
  """Declarations of `reconstruction_0` and on, one a machine."""
  below = lambda k: f'the hidden units of machine {k - 1}' if k else 'the pixels'
  return {
    f'reconstruction_{k}': Metric(
      f'Reconstruction error, machine {k}',
      'lower',
      f'Mean squared error of {below(k)}, made anew from the probabilities of the '
      'hidden units above.',
      group='reconstruction',
    )
    for k in range(depth)
  }


def sums(stack: Sequence[rbm.Machine], v_BV: Array, weight_B: Array) -> dict[str, Mean]:
  """`reconstruction_0` and on, of one batch."""
  found = enumerate(rbm.errors(stack, v_BV))
  return {f'reconstruction_{k}': mean(x, weight_B) for k, x in found}


def functions(
  data: ImageData, stack_of: Stack, pixels: Callable[[Batch], Array], code_size: int
) -> dict[str, Function]:
  """`encode`, `reconstruct` (by the first `machines`, or all) and `sample`.

  Args:
    data: of the images.
    stack_of: state -> the machines from below.
    pixels: batch with `image` -> probabilities of the visible units [B, V].
    code_size: hidden units of the last machine.
  """
  shaped = lambda v_BV: {'image': at_least_float32(v_BV).reshape(-1, *data.shape)}

  def encode(state, inputs):
    code_BH = rbm.up_all(stack_of(state), pixels(inputs))
    return {'features': at_least_float32(code_BH)}

  def reconstruct(state, inputs, machines=None):
    stack = stack_of(state)[:machines]
    return shaped(rbm.down_all(stack, rbm.up_all(stack, pixels(inputs))))

  def sample(state, inputs, steps=200):
    return shaped(rbm.sample(stack_of(state), inputs['seed'], steps))

  image = {'image': Field('image', data.shape, 'uint8', data.max_value)}
  made = {'image': Field('image', data.shape, 'float32')}
  code = {'features': Field('features', (code_size,), 'float32')}
  seed = {'seed': Field('seed', (), 'uint32')}
  return {
    'encode': Function(encode, image, code),
    'reconstruct': Function(reconstruct, image, made),
    'sample': Function(sample, seed, made, {'steps': 200}),
  }


def figures(
  data: ImageData,
  stack_of: Stack,
  depth: int,
  functions: Mapping[str, Function],
  shown: Dataset,
) -> dict[str, Figure]:
  """`filters` of the first machine, `reconstructions` by each depth, and `samples`.

  Args:
    depth: number of machines.
    functions: of `functions`.
    shown: whose first images are reconstructed.
    data, stack_of: see `functions`.
  """

  def filters(state, key, batch):
    del key, batch
    kernel_VH = stack_of(state)[0]['kernel'][:, :SHOWN]
    return at_least_float32(kernel_VH).T.reshape(-1, *data.shape).mean(-1)

  def reconstructions(state, key, batch):
    del key
    some = {'image': batch['image'][:16]}
    rows = [data.to_unit(some['image'])]
    for count in range(1, depth + 1):
      rows.append(functions['reconstruct'].call(state, some, machines=count)['image'])
    return jnp.stack(rows)

  def samples(state, key, batch):
    del batch
    return functions['sample'].call(state, {'seed': jax.random.bits(key, (SHOWN,))})[
      'image'
    ]

  depths = [f'{k} deep' for k in range(1, depth + 1)]
  return {
    'filters': Figure(
      lambda weights: draw.weights_grid(
        weights, columns=10, title='Weights of the first machine, a unit a square'
      ),
      compute=filters,
    ),
    'reconstructions': Figure(
      lambda rows: draw.mosaic(
        rows, ['image', *depths], title='Images, and what the machines make of them'
      ),
      compute=reconstructions,
      data=shown,
    ),
    'samples': Figure(
      lambda found: draw.image_grid(
        found, columns=10, title='Samples: a Gibbs chain in the machine on top'
      ),
      compute=samples,
    ),
  }
