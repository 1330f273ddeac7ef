"""What every call of C++ with a form of its own has in common."""

import functools
from typing import Any, Callable

import jax
import jax.numpy as jnp


def float32(name: str, shapes) -> Callable[..., Any]:
  """The call `name`, whose results are float32 of these shapes; of each row by vmap."""
  return typed(name, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))


def typed(name: str, *like: Any) -> Callable[..., Any]:
  """The call `name`, with results of these shapes and dtypes; of each row by vmap."""
  types = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like)
  return jax.ffi.ffi_call(name, types, vmap_method='sequential')


def wide(x: jax.Array) -> jax.Array:
  """In float32, or wider where it is: what sums are in."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def differentiate_plain(call, plain: Callable[..., Any], whole: int = 0):
  """Gives a custom_vjp the derivative of its plain form.

  Args:
    call: its first argument is not differentiated, and hashable.
    plain: computes the same.
    whole: so many of the last arguments are whole numbers, without a derivative.
  """

  def rule(form, args, cotangents):
    floats, numbers = args[: len(args) - whole], args[len(args) - whole :]
    _, pull = jax.vjp(lambda *x: plain(form, *x, *numbers), *floats)
    return *pull(cotangents), *[None] * whole

  call.defvjp(lambda form, *args: (call(form, *args), args), rule)


def on_cpu(call, plain, form, *args) -> Any:
  """call(form, *args) where the platform is a CPU, plain(form, *args) elsewhere."""
  return jax.lax.platform_dependent(
    *args, cpu=functools.partial(call, form), default=functools.partial(plain, form)
  )
