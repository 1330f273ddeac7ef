"""Convolutions on Hopper by Mosaic GPU: which kernel computes which case.

Depthwise of stride 1, with all derivatives: mosaic_gpu_depthwise. Dense of stride 1,
values and the gradient of the input: mosaic_gpu_gemm. Everything else is refused.
Written for an H200; run on none so far: what is known of them is the simulator's, and
static (python -m kernels.conv.static_h200).
"""

from typing import Any, Mapping

import jax

from kernels.conv import mosaic_gpu_depthwise as depthwise
from kernels.conv import mosaic_gpu_gemm as gemm
from kernels.conv.case import FILTER, Case, Operands
from kernels.dispatch import Refusal

Array = jax.Array


def refusal(case: Case) -> Refusal | None:
  """Why the case is not computed; None: it is."""
  return _kernels(case).refusal(case)


def forward(
  case: Case, operands: Operands, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """y [N, H', W', O] in the dtype of x."""
  return _kernels(case).forward(case, operands, interpret=interpret, config=config)


def input_gradient(
  case: Case, dy: Array, w: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  run = _kernels(case).input_gradient
  return run(case, dy, w, interpret=interpret, config=config)


def filter_gradient(
  case: Case, x: Array, dy: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dw [*kernel, C / groups, O] in float32; of depthwise cases only."""
  return depthwise.filter_gradient(case, x, dy, interpret=interpret, config=config)


def _kernels(case: Case):
  return depthwise if case.depthwise and case.channels > 1 else gemm


def configs(case: Case) -> list[dict[str, int]]:
  """Block sizes worth trying on a device (kernels/tune.py); some cases refuse some."""
  if _kernels(case) is depthwise:
    widths = ((32, 2), (64, 2), (32, 4), (64, 4), (128, 4))  # A warp has 32 threads.
    found = [{'channels': n, 'vector': vector} for n, vector in widths]
    found += [{'rows': n} for n in (2, 4, 7, 8, 14)]
    if case.function == FILTER:
      found += [{'columns': n} for n in (1, 2, 4)]
  else:
    sizes = {'warpgroups': (1, 2), 'rows': (4, 8, 16), 'features': (64, 128)}
    found = [{name: n} for name, values in sizes.items() for n in values]
  return [{}, *found]
