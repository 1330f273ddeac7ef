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

INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'remat', 'checkpoint', 'remat2')
CALLS += ('custom_jvp_call', 'custom_vjp_call', 'custom_vjp_call_jaxpr')
_UNROLLED = 64  # Turns of a loop that are looked into one by one.


class _Found(Exception):
  """The operation, as an equation of a jaxpr, its values, and the layers it lies in."""

  def __init__(self, equation: Any, inputs: Any = (), outputs: Any = ()):
    super().__init__(equation)
    self.equation, self.inputs, self.outputs = equation, inputs, outputs
    self.layers: list[str] = []  # From the outermost.


def line(function: Callable, *args: Any, infinite: bool = True) -> str | None:
  """The first operation that made a NaN of none, else an inf of none, in words.

  Args:
    infinite: False: look for a NaN alone.

  Returns:
    'log, at fork.py:12 in loss_fn: `return jnp.log(x)`', with the layer where scopes
    name one; None: none did, or the operations cannot be evaluated alone.
  """
  for bad in (_nan, _inf) if infinite else (_nan,):

    def judge(equation, inputs, outputs, bad=bad):
      if any(map(bad, outputs)) and not any(map(bad, inputs)):
        raise _Found(equation)

    if (found := _first(judge, function, args)) is not None:
      return _told(found)
  return None


def index_out_of_range(function: Callable, *args: Any) -> tuple[int, int, int] | None:
  """The first index that `dlx.labels` finds outside its range [0, size).

  Returns:
    (value, size, dimensions of the indices); None: there is none.
  """

  low = []  # The index that was found below 0: its range is told by what comes next.

  def judge(equation, inputs, outputs):
    if equation.primitive.name not in ('ge', 'lt'):
      return
    if bool(jnp.all(outputs[0])) and not low:
      return
    if not any(f.name == 'is_index' and _ours(f) for f in _frames(equation)):
      return
    if equation.primitive.name == 'ge':
      low.append(inputs[0][~outputs[0]].ravel()[0])
    else:
      raise _Found(equation, inputs, outputs)

  found = _first(judge, function, args)
  if found is None:
    return None
  (index, size), (fine,) = found.inputs, found.outputs
  first = low[0] if low else index[~fine].ravel()[0]
  return int(first), int(jnp.max(size)), index.ndim


def _first(judge: Callable, function: Callable, args: Any) -> _Found | None:
  closed = jax.make_jaxpr(function)(*args)
  try:
    _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(args), judge)
  except _Found as found:
    return found
  except Exception:  # Of an operation that only a whole program can have.
    return None
  return None


def _nan(x: Any) -> bool:
  return _floats(x) and bool(jnp.isnan(x).any())


def _inf(x: Any) -> bool:
  return _floats(x) and not bool(jnp.isfinite(x).all())


def _floats(x: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _evaluate(jaxpr: Any, consts: Any, args: Any, judge: Callable) -> list:
  """The outputs; `judge(equation, inputs, outputs)` sees every operation."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  read = lambda v: v.val if hasattr(v, 'val') else values[v]
  for equation in jaxpr.eqns:
    inputs = [read(v) for v in equation.invars]
    try:
      outputs = _outputs(equation, inputs, judge)
    except _Found as found:
      found.layers.insert(0, layer_of(equation))
      raise
    values.update(zip(equation.outvars, outputs, strict=True))
  return [read(v) for v in jaxpr.outvars]


def _outputs(equation: Any, inputs: list, judge: Callable) -> list:
  name, params = equation.primitive.name, equation.params
  inner = next((params[n] for n in INNER if n in params), None)
  if name in CALLS and inner is not None:
    own = getattr(inner, 'jaxpr', inner), getattr(inner, 'consts', ())
    return _evaluate(*own, inputs, judge)
  if name == 'scan' and params['length'] <= _UNROLLED:
    return _scan(equation, inputs, judge)
  outputs = bind(equation, inputs)
  judge(equation, inputs, outputs)
  return outputs


def bind(equation: Any, inputs: list) -> list:
  """The outputs of one equation of a jaxpr, for values or tracers."""
  bound: Any = equation.primitive.get_bind_params(equation.params)
  functions, params = bound if isinstance(bound, tuple) else ((), bound)
  outputs = equation.primitive.bind(*functions, *inputs, **params)
  return list(outputs) if equation.primitive.multiple_results else [outputs]


def _scan(equation: Any, inputs: list, judge: Callable) -> list:
  """A short loop, as over micro-batches, turn by turn."""
  params = equation.params
  body = getattr(params['jaxpr'], 'jaxpr', params['jaxpr'])
  own = body, getattr(params['jaxpr'], 'consts', ())
  # By their ranks: what is told of consts and carry is named otherwise in jax 0.11.
  same = lambda outer, inner: outer.aval.ndim == inner.aval.ndim
  carried = sum(map(same, equation.outvars, body.outvars))
  kept = sum(map(same, equation.invars, body.invars))
  consts, carry = inputs[: kept - carried], inputs[kept - carried : kept]
  turns, rows = range(params['length']), []
  for i in reversed(turns) if params['reverse'] else turns:
    outputs = _evaluate(*own, [*consts, *carry, *(x[i] for x in inputs[kept:])], judge)
    carry = outputs[:carried]
    rows.append(outputs[carried:])
  rows = rows[::-1] if params['reverse'] else rows
  return [*carry, *map(jnp.stack, zip(*rows, strict=True))]


def _frames(equation: Any) -> list[traceback.FrameSummary]:
  trace = equation.source_info.traceback
  return (
    [] if trace is None else list(traceback.extract_tb(trace.as_python_traceback()))
  )


def _ours(frame: traceback.FrameSummary) -> bool:
  """Whether a line is of dlx itself."""
  library = pathlib.Path(__file__).resolve().parents[1]
  return pathlib.Path(frame.filename).resolve().is_relative_to(library)


def layer_of(equation: Any) -> str:
  """The layer that an operation lies in by its scopes, as Flax gives them: 'blocks/in'.

  The class of the outermost module and names of methods are left out; '': no scope.
  """
  parts = str(equation.source_info.name_stack).split('/')
  # Of jvp(net) the net: what is left of transformations.
  parts = [part.rpartition('(')[2].rstrip(')') for part in parts if '.' not in part]
  if parts and parts[0][:1].isupper():
    parts = parts[1:]  # The class.
  return '/'.join(part for part in parts if part.isidentifier())  # No einsum's letters.


def _told(found: _Found) -> str:
  name, kept = found.equation.primitive.name, _line_of(found.equation)
  layer = '/'.join(part for part in found.layers if part)
  name += f' in layer {layer}' if layer else ''
  if kept is None:
    return name
  where = f'{pathlib.Path(kept.filename).name}:{kept.lineno} in {kept.name}'
  return f'{name}, at {where}' + (f': `{kept.line}`' if kept.line else '')


def place_of(equation: Any) -> str:
  """'FILE:LINE in FUNCTION' of the line that an operation stands for.

  '' where it is known to libraries alone.
  """
  kept = _line_of(equation)
  if kept is None or _installed(kept):
    return ''
  return f'{pathlib.Path(kept.filename).name}:{kept.lineno} in {kept.name}'


def _line_of(equation: Any) -> traceback.FrameSummary | None:
  """The innermost line of the user's own, else of dlx, else of a library."""
  frames = _frames(equation)
  outside = [frame for frame in frames if not _installed(frame)]
  users = [frame for frame in outside if not _ours(frame)]
  return (users or outside or frames or [None])[-1]


def _installed(frame: traceback.FrameSummary) -> bool:
  libraries = pathlib.Path(sysconfig.get_path('purelib')).resolve()
  return pathlib.Path(frame.filename).resolve().is_relative_to(libraries)
