"""PyTorch's side of the bench: the textbook's loop with what makes it fast.

Convolutional nets are channels last, optimisers are fused, sparse matrices are kept in
the form that multiplies fastest, bfloat16 is that of autocast, and batches are made
ready (scaled, as tensors) before the clock runs. dlx does the last in its step.
"""

# pyright: reportMissingImports=false
import operator
from typing import Any, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from launch.benchmarks import workloads
from launch.benchmarks.torch_peer import tasks
from launch.benchmarks.torch_peer.task import Arrays, Task, Tensors, tensors
from launch.benchmarks.torch_peer.weights import NOT_DLX, convert

NUM_BATCHES = 8  # That a run goes through again and again.
_LARGE = (  # Two batches of these will do.
  'resnet18',
  'densenet',
  'convnext',
  'mobilenet',
  'char_gpt_large',
  'vit',
  'gcn',
  'gat',
)


class Side:
  """One workload: its model, its optimiser and its batches.

  Attributes:
    built: the workload as dlx has it.
    model: in the dtype of the config's `param_dtype`.
  """

  def __init__(self, name: str, built: workloads.Built, task: Task, mode: str):
    if mode not in ('eager', 'compile'):
      raise ValueError(f'mode={mode!r} is not allowed: must be eager or compile.')
    config: Any = built.config
    self.built, self._task = built, task
    self._count = NUM_BATCHES if name not in _LARGE else 2
    self._clip = config.clip_norm
    self._narrow = config.compute_dtype == 'bfloat16'
    self.model = task.model.to(getattr(torch, config.param_dtype))
    if any(isinstance(part, nn.Conv2d) for part in task.model.modules()):
      layout: Any = {'memory_format': torch.channels_last}
      task.model.to(**layout)
    experiment = workloads.WORKLOADS[name].experiment
    players = task.model.children() if experiment == 'dcgan' else [task.model]
    self._optimizers = [_optimizer(experiment, config, player) for player in players]
    self._compile = torch.compile if mode == 'compile' else lambda f: f
    self._loss = self._compile(task.loss)
    self._batches: list[Tensors] = []
    self._at = 0

  def load(self, params: Any, model_state: Any = None):
    """Takes dlx's parameters, and running statistics where there are any.

    Raises:
      ValueError: dlx has an array that no module takes, or a module a parameter that
        dlx has not, or of another shape.
    """
    own = self._named()
    found = convert(self.model, params, model_state)
    for key in own:
      if found[key].shape != own[key].shape:
        raise ValueError(
          f'{key} {tuple(own[key].shape)} cannot be {found[key].shape} of dlx.'
        )
    with torch.no_grad():
      for key, tensor in own.items():
        tensor.copy_(torch.tensor(found[key]))

  def arrays(self) -> dict[str, np.ndarray]:
    """Copies of parameters and running statistics by name."""
    return {key: x.numpy().copy() for key, x in self._named().items()}

  def _named(self) -> dict[str, Tensor]:
    named = [*self.model.named_parameters(), *self.model.named_buffers()]
    return {
      key: x.detach() for key, x in named if key.rpartition('.')[2] not in NOT_DLX
    }

  def step(self, n: int) -> float:
    """n training steps on batches and noise of its own; the last loss. One sync."""
    if not self._batches:
      made = workloads.batches(self.built, self._count)
      self._batches = [self._task.ready(batch) for batch in made]
    loss = torch.zeros(())
    for _ in range(n):
      batch = self._batches[self._at % self._count]
      self._at += 1
      loss = self._update(batch, self._task.draw(batch))
    return float(loss)

  def losses(
    self,
    batches: Sequence[Arrays],
    noise: Sequence[Arrays] | None = None,
    lr: Sequence[float] | None = None,
  ) -> list[float]:
    """The loss of one training step on each batch.

    Args:
      batches: as `workloads.batches` gives them.
      noise: of each step: `z` (vae, dcgan), `t` and `eps` (ddpm); None: drawn.
      lr: of each step; None: that of the config.
    """
    found = []
    for i, batch in enumerate(batches):
      for optimizer in self._optimizers if lr is not None else ():
        for group in optimizer.param_groups:
          group['lr'] = lr[i]  # type: ignore[index]
      ready = self._task.ready(batch)
      drawn = self._task.draw(ready) if noise is None else _given(noise[i])
      found.append(float(self._update(ready, drawn)))
    return found

  def _update(self, batch: Tensors, noise: Tensors) -> Tensor:
    (optimizer,) = self._optimizers
    optimizer.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=self._narrow):
      loss = self._loss(self.model, batch, noise)
    loss.backward()
    if self._clip is not None:
      nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
    optimizer.step()
    return loss.detach()


class TwoPlayers(Side):
  """Generator and discriminator: samples are made once for the steps of both."""

  def __init__(self, *args: Any):
    super().__init__(*args)
    self._critic_loss = self._compile(tasks.critic_loss)
    self._make = self._compile(lambda model, z: model['g'](z))

  def _update(self, batch: Tensors, noise: Tensors) -> Tensor:
    g, d = self._optimizers
    model: Any = self.model
    fake = self._make(model, noise['z'])
    d.zero_grad()
    loss = self._critic_loss(model, batch['image'], fake.detach())
    loss.backward()
    d.step()
    # Its own gradients are not asked for when it teaches the generator.
    model['d'].requires_grad_(False)
    g.zero_grad()
    self._loss(model, fake, noise).backward()
    g.step()
    model['d'].requires_grad_(True)
    return loss.detach()


def build(name: str, mode: str, **fields: Any) -> Side:
  """A workload in PyTorch.

  Args:
    name: one of workloads.WORKLOADS.
    mode: 'eager', or 'compile': the same under torch.compile.
    fields: of the Config, in place of the workload's; sizes and rates.

  Raises:
    ValueError: a field that the models here are not written for.
  """
  experiment = workloads.WORKLOADS[name].experiment
  built = workloads.build(name, **fields)
  for field, only in {**tasks.ALWAYS, **tasks.ONLY[experiment]}.items():
    value = operator.attrgetter(field)(built.config)
    if value != only:
      raise ValueError(f'{name}: {field}={value!r} is not allowed: must be {only!r}.')
  torch.manual_seed(built.config.seed)
  side = TwoPlayers if experiment == 'dcgan' else Side
  return side(name, built, tasks.TASKS[experiment](built), mode)


def _given(noise: Arrays) -> Tensors:
  found = tensors(noise)
  if 'eps' in found:
    found['eps'] = found['eps'].permute(0, 3, 1, 2)
  return found


def _optimizer(experiment: str, config: Any, model: nn.Module) -> torch.optim.Optimizer:
  fused: Any = {'lr': config.lr, 'fused': True}
  if experiment in ('gcn', 'gat'):
    # The published L2 term is of the first kernel alone, or of all but the biases.
    named = [*model.named_parameters()]
    decays = lambda name: (
      name == 'kernel_0' or (experiment == 'gat' and not name.endswith('bias'))
    )
    first = [p for name, p in named if decays(name)]
    rest = [p for name, p in named if not decays(name)]
    groups = [
      {'params': first, 'weight_decay': config.weight_decay},
      {'params': rest, 'weight_decay': 0.0},
    ]
    return torch.optim.Adam(groups, **fused)
  if experiment in ('vae', 'dcgan', 'ddpm', 'translation'):
    b1 = config.b1 if experiment == 'dcgan' else 0.9
    return torch.optim.Adam(model.parameters(), betas=(b1, 0.999), **fused)
  moved = [p for p in model.parameters() if p.requires_grad]
  matrices = [p for p in moved if p.ndim > 1]
  vectors = [p for p in moved if p.ndim <= 1]
  groups = [
    {'params': matrices, 'weight_decay': config.weight_decay},
    {'params': vectors, 'weight_decay': 0.0},
  ]
  if experiment in ('resnet', 'densenet'):
    nesterov = getattr(config, 'nesterov', True)  # Always of the latter.
    some = {'momentum': config.momentum, 'nesterov': nesterov}
    return torch.optim.SGD(groups, **some, **fused)
  betas = getattr(config, 'beta1', 0.9), getattr(config, 'beta2', 0.999)
  return torch.optim.AdamW(groups, betas=betas, **fused)
