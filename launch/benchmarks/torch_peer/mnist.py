"""The experiment `cnn` on MNIST as one writes it in PyTorch, to a wanted accuracy.

  python -m launch.benchmarks.torch_peer.mnist '{"data_dir": "DIR", "seed": 0, ...}'

Prints a line with the step and `test/accuracy` at every evaluation, as launch.train
does. Neither jax nor anything of dlx is imported.
"""

# pyright: reportMissingImports=false
import gzip
import json
import pathlib
import sys

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from launch.benchmarks.torch_peer.models import CNN
from launch.machine import allocator


def read(folder: pathlib.Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
  """(images f32[N, 1, 28, 28] in [0, 1], labels i64[N])."""
  load = lambda name, skip: np.frombuffer(
    gzip.decompress((folder / name).read_bytes())[skip:], np.uint8
  )
  images = load(f'{part}-images-idx3-ubyte.gz', 16).reshape(-1, 1, 28, 28)
  labels = load(f'{part}-labels-idx1-ubyte.gz', 8)
  return torch.from_numpy(images / np.float32(255)), torch.tensor(labels).long()


def main(argv: list[str]):
  """Trains; see `accuracy.FIELDS` for what argv[1] holds beside data_dir and seed."""
  asked = json.loads(argv[1])
  steps, batch_size = asked['num_steps'], asked['batch_size']
  torch.manual_seed(asked['seed'])
  folder = pathlib.Path(asked['data_dir']) / 'mnist'
  images, labels = read(folder, 'train')
  test_images, test_labels = read(folder, 't10k')
  mean, std = images.mean(), images.std()
  images.sub_(mean).div_(std)
  test_images.sub_(mean).div_(std)
  model = CNN((28, 28, 1), (32, 64), 128, 10, dropout=0.3)
  model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=asked['lr'], weight_decay=0.0, fused=True
  )
  schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, asked['lr'], total_steps=steps, cycle_momentum=False
  )
  order = torch.empty(0, dtype=torch.long)
  for step in range(1, steps + 1):
    if len(order) < batch_size:
      order = torch.cat([order, torch.randperm(len(images))])
    rows, order = order[:batch_size], order[batch_size:]
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images[rows]), labels[rows])
    loss.backward()
    optimizer.step()
    schedule.step()
    if step % asked['eval_every_steps'] == 0 or step == steps:
      print(f'step {step}  test/accuracy {_accuracy(model, test_images, test_labels)}')
      sys.stdout.flush()


@torch.inference_mode()
def _accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
  model.eval()
  right = sum(
    int((model(x).argmax(1) == y).sum())
    for x, y in zip(images.split(1000), labels.split(1000), strict=True)
  )
  model.train()
  return right / len(labels)


if __name__ == '__main__':
  allocator.tune()
  main(sys.argv)
