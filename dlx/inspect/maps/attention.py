"""What the tokens of a transformer look at: weights by head, and their rollout."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.inspect.maps.model import Model, places
from dlx.inspect.maps.naming import Layer
from dlx.models import vit

Array = jax.Array


class Attention(NamedTuple):
  """Attributes:
  heads_BNhw: of the last block, a head each: what the token that is read looks at.
  rollout_Bhw: of all blocks (arXiv:2005.00928).
  """

  heads_BNhw: Array
  rollout_Bhw: Array


def pairs(model: Model) -> list[tuple[Layer, Layer]]:
  """Layers of queries and keys [B, T, heads, K], block by block.

  Raises:
    ConfigError: there are none: layers called `query` and `key` side by side.
  """
  found = []
  for name, layer in model.layers.items():
    head, _, last = name.rpartition('/')
    if last.partition(' ')[0] != 'query' or len(layer.shape) != 4:
      continue
    beside = '/'.join(filter(None, (head, last.replace('query', 'key', 1))))
    key = model.layers.get(beside)
    if key is not None and key.shape == layer.shape:
      found.append((layer, key))
  if not found:
    raise ConfigError(
      'The model has no attention that can be seen, no layers query and key side by '
      f'side: its layers are {", ".join(model.layers)}.'
    )
  return found


def weights(model: Model, state: Any, image_BHWC: Array) -> Array:
  """softmax(q k^T / sqrt(K)) of every block, [N, B, H, T, T]; rows sum to 1.

  Of attention in which every token sees all others; not of rotary positions.
  """
  found = []
  for query, key in pairs(model):
    q_BTHK, k_BTHK = (
      model.value(x, state, image_BHWC).astype(jnp.float32) for x in (query, key)
    )
    scores = jnp.einsum('blhk,bmhk->bhlm', q_BTHK, k_BTHK, precision='highest')
    found.append(jax.nn.softmax(scores * q_BTHK.shape[-1] ** -0.5))
  return jnp.stack(found)


def attention(model: Model, state: Any, image_BHWC: Array) -> Attention:
  """The maps of one image after the other.

  The token that is read is the class token where there is one, else the mean of all.

  Raises:
    ConfigError: no attention, or tokens that are no square patches.
  """
  weights_NBHTT = weights(model, state, image_BHWC)
  tokens = weights_NBHTT.shape[-1]
  grid = places((1, tokens, 1), model.size)
  if grid is None:
    raise ConfigError(
      f'The {tokens} tokens of the model are no square patches of '
      f'{model.size[0]} x {model.size[1]} pixels: there is no map to draw.'
    )
  pool = 'token' if tokens == grid[0] * grid[1] + 1 else 'mean'
  rolled = vit.token_maps(vit.rollout(weights_NBHTT)[:, None], grid, pool)
  return Attention(vit.token_maps(weights_NBHTT[-1], grid, pool), rolled[:, 0])
