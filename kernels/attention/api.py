"""`flash_attention`: checks its arguments, chooses who computes, has derivatives."""

import functools
import pathlib
from typing import Any, Sequence

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.attention import reference, xla
from kernels.attention.case import Case, Operands

Array = jax.Array
Implementation = str | Sequence[str]

FUNCTIONS = ('forward', 'backward', 'values')
# Whose kernels can leave the log sums out. XLA does so alone where nobody reads them.
WITHOUT_LOG_SUMS = ('mosaic_tpu',)


def _backend(
  name: str, module: str, platforms: Sequence[str], simulated: bool
) -> dispatch.Backend:
  """With `values`, o alone: of most the first that `forward` gives."""
  path = f'kernels.attention.{module}'
  found = dispatch.lazy(name, platforms, path, FUNCTIONS, simulated)
  if name in WITHOUT_LOG_SUMS:
    return found
  forward = found.functions['forward']
  values = lambda *args, **options: forward(*args, **options)[0]
  return found._replace(functions={**found.functions, 'values': values})


BACKENDS = {
  name: _backend(name, module, platforms, sim)
  for name, module, platforms, sim in (
    ('reference', 'reference', dispatch.PLATFORMS, False),
    ('xla', 'xla', dispatch.PLATFORMS, False),
    ('onednn', 'cpu', ('cpu',), False),
    ('cudnn', 'cudnn', ('cuda',), False),
    ('mosaic_gpu', 'mosaic_gpu', ('cuda',), True),
    ('mosaic_tpu', 'mosaic_tpu', ('tpu',), True),
  )
}
LIBRARIES = {'cpu': ('onednn', 'xla'), 'cuda': ('cudnn', 'xla'), 'tpu': ('xla',)}
OPERATION = dispatch.Operation(
  'attention', BACKENDS, LIBRARIES, pathlib.Path(__file__).parent / 'tuned'
)


def flash_attention(
  q: Array,
  k: Array,
  v: Array,
  *,
  causal: bool = False,
  segment_ids: Array | None = None,
  kv_segment_ids: Array | None = None,
  bias: Array | None = None,
  window: int | tuple[int, int] | None = None,
  softmax_scale: float | None = None,
  soft_cap: float | None = None,
  dropout_rate: float = 0.0,
  dropout_key: Array | None = None,
  return_lse: bool = False,
  implementation: Implementation = 'auto',
  interpret: Any = None,
) -> Any:
  """softmax(scale q k^T) v for each head: o [B, L, H, K] in the dtype of q.

  A query that sees no key gives 0, a log sum of -inf, and no gradient. Reverse mode of
  any order.

  Args:
    q: queries [B, L, H, K].
    k: keys [B, M, G, K]; G divides H, query head h reads head h // (H / G).
    v: values [B, M, G, K].
    causal: query l sees keys 0 to l, counted from the first of both also for L != M.
    segment_ids: int32 [B, L]; a query sees keys of its own number.
    kv_segment_ids: int32 [B, M]; None: segment_ids, for L == M.
    bias: added to the scores, of sizes 1 or B, H, L, M; it has a gradient.
    window: query l sees keys l - left to l + right; one number: both. 0 or more.
    softmax_scale: of q k^T; None: 1 / sqrt(K).
    soft_cap: scores s become cap tanh(s / cap), before the bias; above 0.
    dropout_rate: probability that a weight is dropped, 0 <= rate < 1.
    dropout_key: of the dropped weights; None: none is dropped. They are a function of
      the key and the indices: the same in every implementation.
    return_lse: also give the log sum exp of the scores [B, H, L], float32 or wider.
    implementation: 'auto', one of BACKENDS, or several in the order of trial.
    interpret: True: simulated, False: compiled; None: simulated on a CPU only.

  Raises:
    ValueError: shapes, dtypes or values that do not fit, with the allowed.
    UnsupportedKernel: no implementation that was asked for computes this.
  """
  case, operands = prepare(
    q, k, v, causal=causal, segment_ids=segment_ids, kv_segment_ids=kv_segment_ids,
    bias=bias, window=window, softmax_scale=softmax_scale, soft_cap=soft_cap,
    dropout_rate=dropout_rate, dropout_key=dropout_key, return_lse=return_lse,
  )  # fmt: skip
  o, lse = attend(case, implementation, interpret, operands)
  return (o, lse) if return_lse else o


def prepare(q: Array, k: Array, v: Array, **options: Any) -> tuple[Case, Operands]:
  """The case and the operands of these arguments of `flash_attention`.

  Raises:
    ValueError: as there.
  """
  case = describe(q, k, v, **options)
  seed = None
  if case.dropout_rate:
    seed = jax.random.bits(options['dropout_key'], (2,), jnp.uint32)
  q_segment, kv_segment = options.get('segment_ids'), options.get('kv_segment_ids')
  kv_segment = q_segment if kv_segment is None else kv_segment
  return case, Operands(q, k, v, options.get('bias'), q_segment, kv_segment, seed)


def attend(
  case: Case, implementation: Implementation, interpret: Any, operands: Operands
) -> tuple[Array, Array | None]:
  """(o, lse) of a described case; lse is None unless `case.return_lse`."""
  return _attend(case, _names(implementation), interpret, operands)


def residuals(
  case: Case, implementation: Implementation, interpret: Any, operands: Operands
) -> tuple[Array, Array]:
  """(o, lse) of a described case for derivatives by `pull`; its own are XLA's."""
  return _residuals(case, _names(implementation), interpret, operands)


def pull(
  case: Case, implementation: Implementation, interpret: Any, args: tuple
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) of a described case.

  Args:
    case, implementation, interpret: as in `attend`.
    args: operands, o, lse, do, and dlse or None. o and lse may be those of a softmax
      over more keys than there are here, of which this gives these keys' part.
  """
  found: Any = _pull(case, _names(implementation), interpret, args)
  return found


def _names(implementation: Implementation) -> Implementation:
  """Hashable."""
  return implementation if isinstance(implementation, str) else tuple(implementation)


def describe(
  q: Any, k: Any, v: Any, *,
  causal=False, segment_ids=None, kv_segment_ids=None, bias=None, window=None,
  softmax_scale=None, soft_cap=None, dropout_rate=0.0, dropout_key=None,
  return_lse=False,
) -> Case:  # fmt: skip
  """The case of these arguments of `flash_attention`; only shapes and dtypes are read.

  Raises:
    ValueError: as there.
  """
  for name, x in (('q', q), ('k', k), ('v', v)):
    if len(x.shape) != 4 or 0 in x.shape:
      _refuse(name, x.shape, '4 axes, batch, tokens, heads, width, none of size 0')
  batch, q_len, q_heads, head_dim = q.shape
  kv_len, kv_heads = k.shape[1:3]
  if v.shape != k.shape:
    _refuse('v', v.shape, f'the shape of k, {k.shape}')
  if k.shape != (batch, kv_len, kv_heads, head_dim):
    _refuse('k', k.shape, f'({batch}, M, G, {head_dim}) as q {q.shape} has it')
  if q_heads % kv_heads:
    _refuse('k', k.shape, f'a number of heads that divides the {q_heads} of q')
  if not jnp.issubdtype(q.dtype, jnp.floating) or len({q.dtype, k.dtype, v.dtype}) > 1:
    dtypes = f'{q.dtype}, {k.dtype}, {v.dtype}'
    _refuse('dtype of q, k, v', dtypes, 'one floating dtype')
  if (kv_segment_ids is not None and segment_ids is None) or (
    segment_ids is not None and kv_segment_ids is None and q_len != kv_len
  ):
    found = None if kv_segment_ids is None else kv_segment_ids.shape
    _refuse('kv_segment_ids', found, 'given together with segment_ids')
  for name, ids, n in (
    ('segment_ids', segment_ids, q_len),
    ('kv_segment_ids', kv_segment_ids, kv_len),
  ):
    if ids is not None and (ids.shape != (batch, n) or ids.dtype != jnp.int32):
      _refuse(name, f'{ids.dtype}{ids.shape}', f'int32 of shape {(batch, n)}')
  full = (batch, q_heads, q_len, kv_len)
  if bias is not None:
    fits = len(bias.shape) == 4 and all(
      b in (1, n) for b, n in zip(bias.shape, full, strict=True)
    )
    if not fits:
      _refuse('bias', bias.shape, f'sizes 1 or those of {full}')
  if window is not None:
    window = (window, window) if isinstance(window, int) else tuple(window)
    if len(window) != 2 or min(window) < 0:
      _refuse('window', window, 'one or two numbers of 0 or more')
  if soft_cap is not None and not soft_cap > 0:
    _refuse('soft_cap', soft_cap, 'above 0')
  if not 0 <= dropout_rate < 1:
    _refuse('dropout_rate', dropout_rate, 'in [0, 1)')
  return Case(
    batch=batch,
    q_len=q_len,
    kv_len=kv_len,
    q_heads=q_heads,
    kv_heads=kv_heads,
    head_dim=head_dim,
    dtype=jnp.dtype(q.dtype).name,
    scale=float(head_dim**-0.5 if softmax_scale is None else softmax_scale),
    causal=bool(causal),
    window=window,
    segments=segment_ids is not None,
    bias=None if bias is None else tuple(bias.shape),
    soft_cap=None if soft_cap is None else float(soft_cap),
    dropout_rate=0.0 if dropout_key is None else float(dropout_rate),
    return_lse=bool(return_lse),
  )


def _refuse(name: str, value: Any, allowed: str):
  raise ValueError(f'{name}={value} is not allowed: must be {allowed}.')


def explain(
  q: Any, k: Any, v: Any, *,
  implementation: Implementation = 'auto', platform: str | None = None,
  interpret: Any = None, **options: Any,
) -> str:  # fmt: skip
  """What `flash_attention` of these arguments would use, and why nothing before it.

  Args:
    q, k, v: arrays or jax.ShapeDtypeStruct.
    implementation: as there.
    platform: 'cpu', 'cuda' or 'tpu'; None: that of the default device.
    interpret: as there; changes nothing here.
    options: as there.
  """
  del interpret
  case = describe(q, k, v, **options)
  return OPERATION.choose(
    case, implementation, platform or dispatch.default_platform()
  ).text


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(case, implementation, interpret, operands: Operands) -> Any:
  if case.return_lse:
    return OPERATION.run('forward', case, implementation, interpret, operands)
  return OPERATION.run('values', case, implementation, interpret, operands), None


def _attend_forward(case, implementation, interpret, operands):
  found: Any = _residuals(case, implementation, interpret, operands)
  o, lse = found
  return (o, lse if case.return_lse else None), (operands, o, lse)


def _attend_backward(case, implementation, interpret, residuals, slopes):
  operands, o, lse = residuals
  do, dlse = slopes
  args = (operands, o, lse, do, dlse if case.return_lse else None)
  dq, dk, dv = pull(case, implementation, interpret, args)
  dbias: Any = None
  if operands.bias is not None:  # Costs nothing under jit where nobody uses it.
    dbias = _pull_bias(case, args)
  return (Operands(dq, dk, dv, dbias),)


# What `_attend` computes, for its own derivative to keep. Second derivatives reach the
# log sums even where nobody asked for them, and not every implementation takes that.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _residuals(case, implementation, interpret, operands: Operands) -> Any:
  return OPERATION.run('forward', case, implementation, interpret, operands)


def _residuals_forward(*args):
  found: Any = _residuals(*args)
  return found, (args[-1], *found)


def _residuals_backward(case, implementation, interpret, residuals, slopes):
  del implementation
  case = case._replace(return_lse=True)
  return _attend_backward(case, 'xla', interpret, residuals, slopes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _pull(case, implementation, interpret, args: tuple) -> Any:
  return OPERATION.run('backward', case, implementation, interpret, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _pull_bias(case, args: tuple) -> Array:
  return xla.bias_gradient(case, *args)


# Derivatives of derivatives are the reference's.
def _pull_backward(case, implementation, interpret, args, slopes):
  del implementation, interpret
  _, pull = jax.vjp(lambda args: reference.backward(case, *args), args)
  return pull(slopes)


def _pull_bias_backward(case, args, slopes):
  _, pull = jax.vjp(lambda args: reference.bias_gradient(case, *args), args)
  return pull(slopes)


_attend.defvjp(_attend_forward, _attend_backward)
_residuals.defvjp(_residuals_forward, _residuals_backward)
_pull.defvjp(lambda *args: (_pull(*args), args[-1]), _pull_backward)
_pull_bias.defvjp(lambda *args: (_pull_bias(*args), args[-1]), _pull_bias_backward)
