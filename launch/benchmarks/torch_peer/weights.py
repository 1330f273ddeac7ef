"""Weights of dlx as PyTorch's modules keep them.

Modules bear the names of dlx's parameters, so that the kind of a module says what its
arrays are called there and how they lie.
"""

# pyright: reportMissingImports=false
from typing import Any, Callable, Mapping

import jax
import numpy as np
from torch import nn

from launch.benchmarks.torch_peer.unet import ToPixels

Array = np.ndarray
NOT_DLX = ('num_batches_tracked', 'table')  # Buffers that dlx has no array for.


def _dense(kernel: Array) -> Array:
  return kernel.reshape(-1, kernel.shape[-1]).T


def _conv(kernel: Array, size: tuple[int, ...]) -> Array:
  """HWIO, or the kernel of a Dense of whole windows, row by row, to OIHW."""
  return kernel.reshape(*size, -1, kernel.shape[-1]).transpose(3, 2, 0, 1)


def _squares_last(x: Array) -> Array:
  """Output channels counted pixel by pixel of a square -> channel by channel."""
  parts = x.reshape(*x.shape[:-1], 4, x.shape[-1] // 4)
  return parts.swapaxes(-1, -2).reshape(x.shape)


_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
_LSTM = {'ih': 'input', 'hh': 'hidden'}


def _source(module: nn.Module, name: str) -> tuple[str, Callable[[Array], Array]]:
  """What dlx calls an array of a module, and how it becomes the module's."""
  same = lambda x: x
  if isinstance(module, _NORMS):
    called = {'weight': 'scale', 'running_mean': 'mean', 'running_var': 'var'}
    return called.get(name, name), same
  if isinstance(module, nn.Embedding):
    return 'embedding', same
  if isinstance(module, nn.LSTM):
    what, which, _ = name.split('_')
    return f'{_LSTM[which]}_{"kernel" if what == "weight" else what}', np.transpose
  if name != 'weight':
    flat = np.ravel if isinstance(module, nn.Linear) else same
    return name, _squares_last if isinstance(module, ToPixels) else flat
  if isinstance(module, nn.Linear):
    return 'kernel', _dense
  if isinstance(module, ToPixels):
    return 'kernel', lambda x: _conv(_squares_last(x), (1, 1))
  if isinstance(module, nn.ConvTranspose2d):
    # torch's window runs the other way.
    return 'kernel', lambda x: np.flip(x, (0, 1)).transpose(2, 3, 0, 1).copy()
  if isinstance(module, nn.Conv1d):
    return 'kernel', lambda x: x.transpose(2, 1, 0)
  if isinstance(module, nn.Conv2d):
    return 'kernel', lambda x: _conv(x, module.kernel_size)
  return name, same


def convert(model: nn.Module, params: Any, model_state: Any = None) -> dict[str, Array]:
  """Name of each parameter and running statistic of `model` -> dlx's array for it.

  Args:
    params: of dlx.
    model_state: of dlx; of it, the statistics of batch norm.

  Raises:
    ValueError: something is left over on either side.
  """
  left = _flat(params)
  state = model_state or {}
  of_players = {name: state[name] for name in ('g', 'd') if name in state}
  left |= _flat(state.get('batch_stats', of_players))
  left = _one_product(_one_by_one(left))
  found, missing = {}, []
  for prefix, module in model.named_modules():
    own = [
      *module.named_parameters(recurse=False),
      *module.named_buffers(recurse=False),
    ]
    for name, _ in own:
      if name in NOT_DLX:
        continue
      called, change = _source(module, name)
      path = f'{prefix}.{called}'.strip('.').replace('.', '/')
      key = f'{prefix}.{name}'.strip('.')
      if path in left:
        found[key] = change(left.pop(path))
      else:
        missing.append(key)
  if missing or left:
    raise ValueError(
      f'Not in dlx: {", ".join(missing) or "none"}. Not in PyTorch: '
      f'{", ".join(left) or "none"}.'
    )
  return found


def _flat(tree: Any) -> dict[str, Array]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  path = lambda keys: jax.tree_util.keystr(keys, simple=True, separator='/')
  return {path(keys): np.asarray(leaf) for keys, leaf in leaves}


def _one_by_one(arrays: Mapping[str, Array]) -> dict[str, Array]:
  """Arrays of a stack of blocks -> those of each block."""
  found = {}
  for path, x in arrays.items():
    before, stacked, after = path.partition('/blocks/')
    if stacked:
      found |= {f'{before}/blocks/{i}/{after}': row for i, row in enumerate(x)}
    else:
      found[path] = x
  return found


def _one_product(arrays: Mapping[str, Array]) -> dict[str, Array]:
  """Queries, keys and values side by side."""
  found, parts = {}, {}
  for path, x in arrays.items():
    before, _, name = path.rpartition('/')
    layer, _, which = before.rpartition('/')
    if which in ('query', 'key', 'value'):
      # The kernel is [D, H, K], the bias [H, K].
      flat = x.reshape(x.shape[0], -1) if name == 'kernel' else x.reshape(-1)
      parts.setdefault(f'{layer}/qkv/{name}', {})[which] = flat
    else:
      found[path] = x
  for path, part in parts.items():
    found[path] = np.concatenate([part[n] for n in ('query', 'key', 'value')], -1)
  return found
