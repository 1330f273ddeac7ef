"""Products of matrices by PyTorch's libraries, for what the machine gives at best."""

# pyright: reportMissingImports=false
from typing import Any, Callable

import torch


def product(dtype: str, size: int, library: str) -> tuple[Callable[[], Any], Any]:
  """(the product of two [size, size], result -> its first number).

  Args:
    dtype: 'float32' or 'bfloat16'.
    size: rows and columns.
    library: 'torch': what torch.mm calls, MKL or what it was built with, in bfloat16
      oneDNN; 'torch_onednn': the oneDNN inside of torch, also in float32.
  """
  torch.set_grad_enabled(False)
  a = torch.ones((size, size), dtype=getattr(torch, dtype))
  if library == 'torch_onednn':
    linear: Any = torch._C._nn.mkldnn_linear
    packed = a.to_mkldnn()
    return lambda: linear(packed, packed, None), lambda x: x.to_dense()[0, 0]
  out = torch.empty_like(a)
  return lambda: torch.mm(a, a, out=out), lambda x: x[0, 0]
