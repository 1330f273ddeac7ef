"""What a program calls besides XLA's own operations: kernels, and calls of C++.

Which implementation `auto` takes is decided when a program is traced or lowered, by the
device, what is built there and what was measured. So the lowered program is looked at,
and not who decided: what it calls computes some of the run's bits.
"""

from typing import Any

from jax.extend.mlir import ir

# Notes on placement, which compute nothing.
_PLACEMENT = ('Sharding', 'SPMDFullToShardShape', 'SPMDShardToFullShape')
_PLACEMENT += ('annotate_device_placement',)


def of(lowered: Any) -> dict[str, int]:
  """How often each target is called in the text of a program, by name.

  A loop's body stands there once. Kernels of Pallas have the name of their function
  behind that of the target.

  Args:
    lowered: as `jax.jit(f).lower(...)`.
  """
  found: dict[str, int] = {}

  def visit(operation: Any) -> Any:
    if operation.name == 'stablehlo.custom_call':
      attributes = operation.attributes
      name = ir.StringAttr(attributes['call_target_name']).value
      if 'kernel_name' in attributes:
        name += f':{ir.StringAttr(attributes["kernel_name"]).value}'
      if name not in _PLACEMENT:
        found[name] = found.get(name, 0) + 1
    return ir.WalkResult.ADVANCE

  lowered.compiler_ir('stablehlo').operation.walk(visit)
  return dict(sorted(found.items()))
