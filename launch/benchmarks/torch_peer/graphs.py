"""Classifiers of nodes in PyTorch: sparse products, and attention over links."""

# pyright: reportMissingImports=false
from typing import Any
import warnings

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from launch.benchmarks import workloads
from launch.benchmarks.torch_peer import attention, models
from launch.benchmarks.torch_peer.task import Arrays, Task, Tensors, dtype_of, shapes_of


def _graph(batch: Arrays, inputs: int, dtype: torch.dtype) -> tuple[Tensors, Any, Any]:
  """X normalised once, the nodes that are trained, senders and receivers of links."""
  number = batch['label'].shape[0]
  a, b = batch['edges'].T
  nodes = np.arange(number)
  sender, receiver = np.concatenate([a, b, nodes]), np.concatenate([b, a, nodes])
  row, column = batch['indices'].T
  sums = np.bincount(row, batch['values'], number)
  values = batch['values'] / np.where(sums == 0, 1, sums)[row]
  found = {
    'x': _sparse(row, column, values, (number, inputs), dtype=dtype),
    'x_transposed': _sparse(column, row, values, (inputs, number), dtype=dtype),
    'node': torch.tensor(np.flatnonzero(batch['train'])),
    'label': torch.tensor(batch['label'][batch['train']].astype(np.int64)),
  }
  return found, sender, receiver


def gat(built: workloads.Built) -> Task:
  c: Any = built.config
  shapes = shapes_of(built)
  inputs = shapes['attention_0']['kernel'].shape[0]
  outputs = shapes['attention_1']['bias'].shape[1]

  def ready(batch: Arrays) -> Tensors:
    found, *links = _graph(batch, inputs, dtype_of(c))
    sender, receiver = (torch.tensor(x.astype(np.int64)) for x in links)
    return {**found, 'sender': sender, 'receiver': receiver}

  def loss(model: Any, batch: Tensors, noise: Tensors) -> Tensor:
    links = batch['sender'], batch['receiver']
    logits_NK = model(batch['x'], batch['x_transposed'], *links)
    # The gradient of the L2 term is the optimiser's part.
    weights = [p for name, p in model.named_parameters() if not name.endswith('bias')]
    squares = torch.stack([p.detach().square().sum() for p in weights]).sum()
    entropy = F.cross_entropy(logits_NK[batch['node']], batch['label'])
    return entropy + c.weight_decay / 2 * squares

  model = attention.GAT(inputs, c.heads, c.features, c.output_heads, outputs)
  return Task(model, ready, loss)


def gcn(built: workloads.Built) -> Task:
  c: Any = built.config
  shapes = shapes_of(built)
  inputs, outputs = shapes['kernel_0'].shape[0], shapes['kernel_1'].shape[1]

  def ready(batch: Arrays) -> Tensors:
    """A normalised once, as it does not change."""
    found, sender, receiver = _graph(batch, inputs, dtype_of(c))
    number = batch['label'].shape[0]
    scale = np.bincount(receiver, minlength=number) ** -0.5
    values = scale[sender] * scale[receiver]
    links = _sparse(receiver, sender, values, (number, number), dtype=dtype_of(c))
    return {**found, 'links': links}

  def loss(model: Any, batch: Tensors, noise: Tensors) -> Tensor:
    logits_NK = model(batch['x'], batch['x_transposed'], batch['links'])
    # The gradient of the L2 term is the optimiser's part.
    kernel = model.kernel_0.detach()
    l2 = c.weight_decay / 2 * kernel.square().sum()
    return F.cross_entropy(logits_NK[batch['node']], batch['label']) + l2

  return Task(models.GCN(inputs, c.features, outputs), ready, loss)


def _sparse(row, column, values, shape, dtype: torch.dtype) -> Tensor:
  """A matrix by its entries, in compressed rows."""
  indices = torch.tensor(np.stack([row, column]).astype(np.int64))
  entries = torch.tensor(values, dtype=dtype)
  checked = torch.sparse.check_sparse_tensor_invariants()
  with checked, warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta')
    return torch.sparse_coo_tensor(indices, entries, shape).coalesce().to_sparse_csr()
