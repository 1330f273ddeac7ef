"""'xla': products by lax.dot_general, of any case on any platform."""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from kernels.matmul.case import Case, batch_of

Array = jax.Array


def refusal(case: Case) -> None:
  """None: it computes all."""


def forward(case: Case, a: Array, b: Array, *, precision: Any = None) -> Array:
  """[*batch, M, N] of the case's out_dtype."""
  batch = batch_of(a.shape, b.shape)
  repeated = lambda x: jnp.broadcast_to(x, batch + x.shape[-2:])
  return lax.dot_general(
    repeated(a),
    repeated(b),
    dimensions(len(a.shape), case.form),
    precision=precision,
    preferred_element_type=jnp.dtype(case.out_dtype),
  )


def dimensions(rank: int, form: str) -> Any:
  """`dimension_numbers` of lax.dot_general for arrays of this rank."""
  of_a = rank - (2 if form[0] == 'T' else 1)
  of_b = rank - (1 if form[1] == 'T' else 2)
  batch = tuple(range(rank - 2))
  return (((of_a,), (of_b,)), (batch, batch))
