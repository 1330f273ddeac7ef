"""'cudnn': attention by cuDNN's fused kernels, through the calls that jax has for them.

The two calls below jax.nn.dot_product_attention(implementation='cudnn') are bound
directly: the first gives the log sums, so that the second does not compute the first
anew, and neither asks for a GPU when it is traced, so that a machine without one lowers
them for cuda (jax 0.10.2 and 0.11.2; the public function asks). They are private to
jax: `_calls` is all that depends on its version. Never run by the tests, which have no
GPU: they look at the program.

A bias is rounded to the dtype of q. A query whose bias is -inf for all keys is not 0
here, and may be NaN.
"""

import functools
import types
from typing import Any

import jax
import jax.numpy as jnp

from kernels.attention.case import Case, Operands
from kernels.dispatch import Refusal

Array = jax.Array


def refusal(case: Case) -> Refusal | None:
  dtypes = ('bfloat16', 'float16')
  if case.dtype not in dtypes:
    return Refusal(f'dtype={case.dtype} is not {" or ".join(dtypes)}', dtypes[0])
  most = _most_head_dim()
  if case.head_dim % 8 or not 0 < case.head_dim <= most:
    near = min(max(8, -(-case.head_dim // 8) * 8), most)
    reason = f'head_dim={case.head_dim} is not a multiple of 8 up to {most}'
    return Refusal(reason, f'head_dim={near}')
  lacks = (
    ('segment_ids', case.segments),
    ('soft_cap', case.soft_cap is not None),
    ('dropout of the given indices', case.dropout_rate > 0),
    ('gradient of the log sums', case.return_lse),
  )
  for name, asked in lacks:
    if asked:
      return Refusal(f'it has no {name}')
  return _refusal_of_window(case) or _refusal_of_bias(case) or _refusal_of_library()


def _refusal_of_window(case: Case) -> Refusal | None:
  if case.window is None:
    return None
  left, right = case.window
  if not case.causal and right:
    return Refusal(f'window={case.window} looks ahead', f'window=({left}, 0) or causal')
  if case.bias is not None:
    return Refusal('a window together with a bias')
  if case.q_len > case.kv_len:
    return Refusal(f'a window with {case.q_len} queries of {case.kv_len} keys')
  return None


def _refusal_of_bias(case: Case) -> Refusal | None:
  if case.bias is None:
    return None
  full = (case.q_len, case.kv_len)
  if case.dtype == 'float16':
    # A mask of -1e9 would be rounded to -inf.
    return Refusal('a bias in float16 ends at 65504', 'bfloat16')
  if case.bias[2:] != full:
    near = str((*case.bias[:2], *full))
    return Refusal(f'bias={case.bias} is not as large as the scores', f'bias={near}')
  if case.q_len % 2 or case.kv_len % 2:
    return Refusal(f'the gradient with a bias for odd lengths {full}', 'even lengths')
  return None


def _refusal_of_library() -> Refusal | None:
  try:
    calls = _calls()
  except (ImportError, AttributeError) as error:
    return Refusal(
      f'jax {jax.__version__} hides the calls: {error}', 'jax 0.10 or 0.11'
    )
  # Without a GPU one compiles for another machine.
  if jax.default_backend() == 'gpu' and calls.cuda_versions is None:
    return Refusal('cuDNN is not found: install jax with its CUDA packages')
  return None


@functools.cache
def _most_head_dim() -> int:
  """256 from Hopper on and, as nobody knows better, without a GPU; before it 128."""
  if jax.default_backend() != 'gpu':
    return 256
  capability = getattr(jax.local_devices()[0], 'compute_capability', '9.0')
  return 256 if float(capability) >= 9 else 128


def forward(case: Case, operands: Operands) -> tuple[Array, Array]:
  """(o [B, L, H, K], log sum exp of the scores [B, H, L] float32)."""
  q, k, v, bias = _inputs(operands)
  return _folding(case, functools.partial(_call_forward, case))(q, k, v, bias)


def backward(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) from what `forward` gave and the slope of o."""
  assert dlse is None
  q, k, v, bias = _inputs(operands)
  call = _folding(case, functools.partial(_call_backward, case))
  return call(q, k, v, bias, lse.astype(jnp.float32), o, do.astype(q.dtype))


def _inputs(operands: Operands) -> tuple[Array, Array, Array, Array | None]:
  q, k, v, bias, *_ = operands
  return q, k, v, None if bias is None else bias.astype(q.dtype)


def _call_forward(case: Case, q, k, v, bias):
  form = _form(case, is_training=True)  # Which is: with the log sums.
  return tuple(_calls().forward(q, k, v, *_rest(q, bias), **form))


def _call_backward(case: Case, q, k, v, bias, lse, o, do):
  rest = (*_rest(q, bias), lse, o, do)
  return tuple(_calls().backward(q, k, v, *rest, **_form(case)))[:3]


def _rest(q: Array, bias: Array | None) -> tuple[Array, ...]:
  """The bias, and six arrays that stand for what is not used."""
  none = jnp.zeros(0, q.dtype)
  return (none if bias is None else bias, *[none] * 6)


def _form(case: Case, **more) -> dict[str, Any]:
  calls = _calls()
  causal = case.causal or case.window is not None  # Nothing ahead: see the refusal.
  return {
    'scale': case.scale,
    'seed': 0,
    'dropout_rate': 0.0,
    # Whether there is a bias, and whether its gradient is wanted.
    'variadic_args': (case.bias is not None, False),
    'mask_type': calls.masks.CAUSAL if causal else calls.masks.NO_MASK,
    'layout': 0,  # [B, L, H, K].
    'sliding_window_length': None if case.window is None else case.window[0] + 1,
    **more,
  }


def _folding(case: Case, call):
  """`call`, under vmap once for all rows, as more examples of a batch.

  jax's own rule wants all operands to have rows, and along their first axis.
  """

  @jax.custom_batching.custom_vmap
  def folded(*args):
    return call(*args)

  @folded.def_vmap
  def rule(rows, has_rows, *args):
    def fold(x, rowed):
      if x is None:
        return None
      x = x if rowed else x[None]
      # A bias may be one of all examples.
      x = jnp.broadcast_to(x, (rows, case.batch, *x.shape[2:]))
      return x.reshape(-1, *x.shape[2:])

    all_rows = _folding(case._replace(batch=rows * case.batch), call)
    found = all_rows(*map(fold, args, has_rows))
    found = tuple(x.reshape(rows, case.batch, *x.shape[1:]) for x in found)
    return found, (True,) * len(found)

  return folded


@functools.cache
def _calls() -> types.SimpleNamespace:
  """What is private to jax; the same in 0.10.2 and 0.11.2."""
  from jax._src.cudnn import fused_attention_stablehlo as private

  return types.SimpleNamespace(
    forward=private._dot_product_attention_fwd_p_wrapper.bind,
    backward=private._dot_product_attention_bwd_p_wrapper.bind,
    masks=private.MaskType,
    cuda_versions=private.cuda_versions,
  )
