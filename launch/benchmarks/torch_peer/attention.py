"""Graph attention in PyTorch, as dlx has it: messages along edges, no matrix N x N."""

# pyright: reportMissingImports=false
from typing import Any

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from launch.benchmarks.torch_peer.models import SparseProduct


class Attention(nn.Module):
  """One layer: shares by softmax over the in-links of a node; heads joined or averaged.

  `kernel` [F, K H], `source` and `target` [K, H], `bias` [1, K H], or [1, H] where the
  mean of the heads is taken.
  """

  def __init__(self, inputs: int, heads: int, features: int, average: bool):
    super().__init__()
    self.average = average
    self.kernel = nn.Parameter(0.05 * torch.randn(inputs, heads * features))
    self.source = nn.Parameter(0.05 * torch.randn(heads, features))
    self.target = nn.Parameter(0.05 * torch.randn(heads, features))
    self.bias = nn.Parameter(torch.zeros(1, features if average else heads * features))

  def forward(self, h_NF: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
    """[N, K H] or [N, H], of h = x @ kernel."""
    nodes = len(h_NF)
    h_NKH = h_NF.view(nodes, *self.source.shape)
    score_EK = (h_NKH * self.source).sum(-1)[sender]
    score_EK = F.leaky_relu(score_EK + (h_NKH * self.target).sum(-1)[receiver], 0.2)
    index_EK = receiver[:, None].expand_as(score_EK)
    low_NK = score_EK.new_full((nodes, score_EK.shape[1]), -torch.inf)
    most_NK = low_NK.scatter_reduce(0, index_EK, score_EK.detach(), 'amax')
    part_EK = torch.exp(score_EK - most_NK[receiver])
    total_NK = torch.zeros_like(most_NK).index_add(0, receiver, part_EK)
    share_EK = part_EK / total_NK[receiver]
    message_EKH = share_EK[:, :, None] * h_NKH[sender]
    out_NKH = torch.zeros_like(h_NKH).index_add(0, receiver, message_EKH)
    out = out_NKH.mean(1) if self.average else out_NKH.flatten(1)
    return out + self.bias


class GAT(nn.Module):
  """Two layers with an ELU between; X is sparse."""

  def __init__(self, inputs: int, heads: int, features: int, output_heads: int, k: int):
    super().__init__()
    self.attention_0 = Attention(inputs, heads, features, False)
    self.attention_1 = Attention(heads * features, output_heads, k, True)

  def forward(self, x: Tensor, transposed: Tensor, *links: Tensor) -> Tensor:
    times: Any = SparseProduct.apply
    h_NF = times(self.attention_0.kernel, x, transposed)
    h_NF = F.elu(self.attention_0(h_NF, *links))
    return self.attention_1(h_NF @ self.attention_1.kernel, *links)
