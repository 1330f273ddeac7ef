"""Which line of a function first made a number that is not finite, from finite ones.

The traced function is evaluated one operation at a time, on the values of the step that
failed; every operation knows the line that it stands for, those of a gradient the line
of the value. Slow, and only done once a run has failed.
"""

import pathlib
import sysconfig
import traceback
from typing import Any, Callable

import jax
import jax.numpy as jnp

_INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
_CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'remat', 'checkpoint', 'remat2')
_CALLS += ('custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')


class _Found(Exception):
  """The operation, as an equation of a jaxpr."""

  def __init__(self, equation: Any):
    super().__init__(equation)
    self.equation = equation


def line(function: Callable, *args: Any) -> str | None:
  """The first operation that made a NaN of none, else an inf of none, in words.

  Returns:
    'log, at fork.py:12 in loss_fn: `return jnp.log(x)`'; None: none did, or the
    operations cannot be evaluated alone.
  """
  closed = jax.make_jaxpr(function)(*args)
  leaves = jax.tree.leaves(args)
  for bad in (_nan, _inf):
    try:
      _evaluate(closed.jaxpr, closed.consts, leaves, bad)
    except _Found as found:
      return _told(found.equation)
    except Exception:  # Of an operation that only a whole program can have.
      return None
  return None


def _nan(x: Any) -> bool:
  return _floats(x) and bool(jnp.isnan(x).any())


def _inf(x: Any) -> bool:
  return _floats(x) and not bool(jnp.isfinite(x).all())


def _floats(x: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _evaluate(jaxpr: Any, consts: Any, args: Any, bad: Callable[[Any], bool]) -> list:
  """The outputs; raises _Found."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  read = lambda v: v.val if hasattr(v, 'val') else values[v]
  for equation in jaxpr.eqns:
    inputs = [read(v) for v in equation.invars]
    inner = next((equation.params[n] for n in _INNER if n in equation.params), None)
    if equation.primitive.name in _CALLS and inner is not None:
      own = getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ())
      outputs = _evaluate(*own, inputs, bad)
    else:
      bound: Any = equation.primitive.get_bind_params(equation.params)
      functions, params = bound if isinstance(bound, tuple) else ((), bound)
      outputs = equation.primitive.bind(*functions, *inputs, **params)
      outputs = outputs if equation.primitive.multiple_results else [outputs]
      if any(map(bad, outputs)) and not any(map(bad, inputs)):
        raise _Found(equation)
    values.update(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _told(equation: Any) -> str:
  name = equation.primitive.name
  trace = equation.source_info.traceback
  if trace is None:
    return name
  frames = traceback.extract_tb(trace.as_python_traceback())
  installed = pathlib.Path(sysconfig.get_path('purelib')).resolve()
  library = pathlib.Path(__file__).resolve().parents[1]
  ours = lambda frame: pathlib.Path(frame.filename).resolve().is_relative_to(library)
  outside = [
    frame
    for frame in frames
    if not pathlib.Path(frame.filename).resolve().is_relative_to(installed)
  ]
  # The innermost line of the user's own, else of dlx.
  users = [frame for frame in outside if not ours(frame)]
  kept = (users or outside or list(frames))[-1:]
  if not kept:
    return name
  where = f'{pathlib.Path(kept[0].filename).name}:{kept[0].lineno} in {kept[0].name}'
  return f'{name}, at {where}' + (f': `{kept[0].line}`' if kept[0].line else '')
