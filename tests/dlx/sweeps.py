"""One of ours against one of torch, in values and gradients, over shapes and options.

All options of a shape are one program, so that a sweep costs a few compilations.
"""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Sweep(NamedTuple):
  """One of ours, one of torch's.

  Attributes:
    draw: (rng, *shape) -> the arguments of both, arrays of NumPy.
    ours, theirs: (*arguments, **option) -> of equal shapes.
    options: of each comparison.
    shapes: likewise; each is one program.
  """

  draw: Callable[..., tuple]
  ours: Callable[..., Any]
  theirs: Callable[..., Any]
  options: tuple[dict[str, Any], ...] = ({},)
  shapes: tuple[tuple[int, ...], ...] = ((1, 1), (6, 3), (9, 17))


def many(name: str, *values: Any) -> tuple[dict[str, Any], ...]:
  """Options that differ in one."""
  return tuple({name: value} for value in values)


def run(torch: Any, sweep: Sweep):
  """`compare` at all shapes, in float64 and float32 by turns."""
  for i, shape in enumerate(sweep.shapes):
    args = sweep.draw(np.random.default_rng(i), *shape)
    dtype = np.float32 if i % 2 else np.float64
    # No number is a sum of more products than the shape has entries, a few times over.
    terms = 8 * max(math.prod(shape), 32)
    compare(
      torch, sweep.ours, sweep.theirs, args, sweep.options, dtype=dtype, terms=terms
    )


def tight(dtype: Any, terms: int, wanted: np.ndarray) -> dict[str, float]:
  """Bounds of numbers that are sums of `terms`, each from some ten roundings.

  Relative to the largest of them, but not below 1, the size of what is summed.
  """
  size = max(1.0, float(np.abs(wanted).max(initial=0)))
  return {'rtol': 0, 'atol': (terms + 16) * size * float(np.finfo(dtype).eps)}


def compare(
  torch: Any,
  ours: Callable[..., Any],
  theirs: Callable[..., Any],
  args: Sequence[np.ndarray],
  options: Sequence[Mapping[str, Any]],
  *,
  dtype: Any = np.float32,
  terms: int = 1,
):
  """Asserts equal values, and equal gradients by all arguments that are floats.

  The gradients are those of a weighted sum of the values, so that no two of them can
  be exchanged.

  Args:
    torch: the module.
    ours: (*arrays, **option) -> array.
    theirs: (*tensors, **option) -> tensor of that shape.
    args: arrays; floats are taken in `dtype`.
    options: of each comparison.
    dtype: float32 or float64.
    terms: how many products or exponentials are summed in a number, at most.
  """
  is_float = [np.issubdtype(x.dtype, np.floating) for x in args]
  args = [x.astype(dtype) if f else x for x, f in zip(args, is_float, strict=True)]
  floats = [x for x, f in zip(args, is_float, strict=True) if f]

  def all_of_them(x):
    rest = iter(x)
    return [next(rest) if f else a for a, f in zip(args, is_float, strict=True)]

  wanted = []
  for i, option in enumerate(options):
    tensors = [torch.tensor(x) for x in args]
    given = [t.requires_grad_() for t, f in zip(tensors, is_float, strict=True) if f]
    value = theirs(*tensors, **option)
    weight = np.random.default_rng(i).normal(size=value.shape).astype(dtype)
    value.backward(torch.tensor(weight))
    slopes = [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in given]
    wanted.append((value.detach().numpy(), slopes, weight))

  def each(*floats):
    found = []
    for option, (_, _, weight) in zip(options, wanted, strict=True):
      one = lambda *x, option=option: ours(*all_of_them(x), **option)
      value, pull = jax.vjp(one, *floats)
      found.append((value, pull(jnp.asarray(weight, value.dtype))))
    return found

  with jax.enable_x64(dtype == np.float64):
    found = jax.device_get(jax.jit(each)(*floats))
  for option, ours_, theirs_ in zip(options, found, wanted, strict=True):
    pairs = {'value': (ours_[0], theirs_[0])}
    for i, pair in enumerate(zip(ours_[1], theirs_[1], strict=True)):
      pairs[f'gradient by argument {i}'] = pair
    for name, (x, y) in pairs.items():
      assert x.dtype == dtype and x.shape == y.shape, (option, name, x.dtype, x.shape)
      np.testing.assert_allclose(
        x, y, err_msg=f'{name} of {option}', **tight(dtype, terms, y)
      )
