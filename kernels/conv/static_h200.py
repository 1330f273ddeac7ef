"""Prints what the compiler makes of the convolutions on an H200 that is not there.

python -m kernels.conv.static_h200 [name]: registers, spills, matrix instructions and
shared memory of the Mosaic GPU kernels, for some layers of ConvNeXt and ResNet in
bfloat16, with a batch of 128. Cases whose name contains `name` only. Needs the CUDA
wheels of JAX and ptxas: see kernels/static/h200.py.
"""

import functools
import sys
from typing import Any, Mapping

import jax
import jax.numpy as jnp

from kernels.conv import mosaic_gpu
from kernels.conv.case import FILTER, FORWARD, INPUT, Case, Operands
from kernels.static import h200


def depthwise(size: int, channels: int, kernel: int, function: str, **more) -> Case:
  pads: Any = ((kernel // 2,) * 2,) * 2
  shape = (128, size, size, channels, channels, (kernel, kernel), 'bfloat16')
  return Case(*shape, padding=pads, groups=channels, function=function, **more)


def dense(size: int, channels: int, features: int, kernel: int, **more) -> Case:
  pads: Any = ((kernel // 2,) * 2,) * 2
  shape = (128, size, size, channels, features, (kernel, kernel), 'bfloat16')
  return Case(*shape, padding=pads, **more)


EPILOGUE = {'scale': True, 'shift': True, 'activation': 'relu'}
CASES = {
  'depthwise 7x7 56x56x96': depthwise(56, 96, 7, FORWARD),
  'depthwise 7x7 28x28x192 epilogue': depthwise(28, 192, 7, FORWARD, **EPILOGUE),
  'depthwise 7x7 14x14x384 input': depthwise(14, 384, 7, INPUT),
  'depthwise 7x7 7x7x768': depthwise(7, 768, 7, FORWARD),
  'depthwise 7x7 56x56x96 filter': depthwise(56, 96, 7, FILTER),
  'depthwise 5x5 28x28x240 filter': depthwise(28, 240, 5, FILTER),
  'depthwise 3x3 112x112x32': depthwise(112, 32, 3, FORWARD, **EPILOGUE),
  'depthwise 3x3 14x14x512 filter': depthwise(14, 512, 3, FILTER),
  '3x3 56x56x64 epilogue': dense(56, 64, 64, 3, residual=True, **EPILOGUE),
  '3x3 28x28x128 epilogue': dense(28, 128, 128, 3, **EPILOGUE),
  '3x3 28x28x128 input': dense(28, 128, 128, 3, function=INPUT),
  '1x1 56x56 64-256 epilogue': dense(56, 64, 256, 1, **EPILOGUE),
}


def program(case: Case, config: Mapping[str, Any] | None = None) -> tuple:
  """What computes a case that is not refused, and the shapes of its arguments."""
  options: Any = {'interpret': False, 'config': config or {}}
  array: Any = lambda shape, dtype=case.dtype: jax.ShapeDtypeStruct(shape, dtype)
  x = array((case.batch, case.height, case.width, case.channels))
  w = array((*case.kernel, case.channels // case.groups, case.features))
  dy = array(case.out_shape)
  if case.function == INPUT:
    return functools.partial(mosaic_gpu.input_gradient, case, **options), dy, w
  if case.function == FILTER:
    return functools.partial(mosaic_gpu.filter_gradient, case, **options), x, dy
  vector = array((case.features,), jnp.float32)
  given = zip((vector, vector, dy), (case.scale, case.shift, case.residual))
  operands = Operands(x, w, *(a if asked else None for a, asked in given))
  return functools.partial(mosaic_gpu.forward, case, **options), operands


def main(arguments: list[str]):
  chosen = [name for name in CASES if all(a in name for a in arguments)]
  print(
    h200.table({name: h200.compile_for_h200(*program(CASES[name])) for name in chosen})
  )


if __name__ == '__main__':
  main(sys.argv[1:])
