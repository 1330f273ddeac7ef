"""The form of a workload in PyTorch, and what it takes from dlx."""

# pyright: reportMissingImports=false
from typing import Any, Callable, Mapping, NamedTuple

import jax
import numpy as np
import torch
from torch import Tensor, nn

from launch.benchmarks import workloads

Tensors = Mapping[str, Tensor]
Arrays = Mapping[str, np.ndarray]


class Task(NamedTuple):
  """What a workload is in PyTorch.

  Attributes:
    model: its parameters are those of dlx.
    ready: a batch of dlx -> tensors, before the clock runs.
    loss: (model, tensors of the batch, noise) -> mean over the batch. Of two players,
      the generator's: (model, samples, noise) -> the same.
    draw: fresh noise for a batch; {} where there is none.
  """

  model: nn.Module
  ready: Callable[[Arrays], Tensors]
  loss: Callable[[Any, Any, Tensors], Any]
  draw: Callable[[Tensors], Tensors] = lambda batch: {}


def tensors(arrays: Arrays) -> dict[str, Tensor]:
  """Copies, as torch warns of arrays that it may not write to; int64 for int32."""
  wide = lambda x: x.astype(np.int64) if x.dtype == np.int32 else x
  return {key: torch.tensor(wide(np.asarray(x))) for key, x in arrays.items()}


def dtype_of(config: Any) -> torch.dtype:
  """That of the parameters."""
  return getattr(torch, config.param_dtype)


def shapes_of(built: workloads.Built) -> Any:
  """Shapes of dlx's parameters; they tell the size of a vocabulary or of features."""
  return jax.eval_shape(built.experiment.init, jax.random.key(0)).params
