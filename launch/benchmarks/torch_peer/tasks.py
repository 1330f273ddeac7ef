"""What each workload is in PyTorch: its model, its batches, its loss and its noise."""

# pyright: reportMissingImports=false
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor, nn
import torch.nn.functional as F

from dlx import diffusion
from dlx.data.sets import images
from dlx.models.inverted_residual import strides_for
from dlx.models.mobilenet import STRIDES, mobilenet_v2
from launch.benchmarks import workloads
from launch.benchmarks.torch_peer import convnets, graphs, models
from launch.benchmarks.torch_peer.task import (
  Arrays,
  Task,
  Tensors,
  dtype_of,
  shapes_of,
  tensors,
)
from launch.benchmarks.torch_peer.unet import UNet

# By experiment, what the models here are written for; anything else is other maths.
ONLY: dict[str, dict[str, Any]] = {
  'mlp': {'dropout': 0.0, 'input_dropout': 0.0, 'batch_norm': False},
  'cnn': {'dropout': 0.0, 'label_smoothing': 0.0},
  'resnet': {
    'imagenet': True, 'depth': 18, 'shortcut': 'auto', 'skip': True, 'pad': 0,
    'flip': False, 'decay_all': False, 'label_smoothing': 0.0,
  },
  'densenet': {
    'imagenet': False, 'dropout': 0.0, 'pad': 0, 'flip': False, 'decay_all': False,
  },
  'convnext': {
    'size': None, 'drop_path': 0.0, 'pad': 0, 'flip': False, 'mix': 'none',
    'label_smoothing': 0.0,
  },
  'mobilenet': {
    'dropout': 0.0, 'pad': 0, 'flip': False, 'optimizer': 'adamw',
    'label_smoothing': 0.0,
  },
  'sst2': {
    'cell': 'lstm', 'bidirectional': False, 'pooling': 'last', 'dropout': 0.0,
    'embedding_dropout': 0.0, 'word_dropout': 0.0,
  },
  'text_cnn': {
    'head': 'softmax', 'dropout': 0.0, 'embedding_dropout': 0.0, 'word_dropout': 0.0,
    'max_norm': None,
  },
  'translation': {
    'net.cell': 'lstm', 'net.num_layers': 1, 'net.bidirectional': False,
    'net.attention': 'general', 'net.input_feeding': False, 'net.dropout': 0.0,
    'label_smoothing': 0.0,
  },
  'char_gpt': {'dropout': 0.0},
  'vit': {
    'pool': 'token', 'dropout': 0.0, 'shift': 0.0, 'flip': False,
    'label_smoothing': 0.0,
  },
  'gcn': {'dropout': 0.0, 'members': 1, 'depth': 2, 'residual': False},
  'gat': {'dropout': 0.0, 'members': 1},
  'vae': {'targets': 'grey', 'sample': True, 'beta': 1.0},
  'dcgan': {
    'clip_norm': None,
    'conditional': False, 'discriminator_norm': 'batch', 'r1': 0.0,
    'game.loss': 'non_saturating', 'game.real_label': 1.0, 'critic_steps': 1,
  },
  'ddpm': {
    'conditional': False, 'diffusion.schedule': 'cosine', 'diffusion.num_steps': 1000,
    'diffusion.prediction': 'v', 'diffusion.min_snr': None, 'unet.patch': 1,
    'unet.blocks': 1, 'unet.attention': (), 'unet.dropout': 0.0,
  },
}  # fmt: skip
ALWAYS = {'micro_batches': 1, 'clip_value': None, 'ema_decay': None}


def _scaled(
  data: images.ImageData, dtype: torch.dtype, mean: Any = 0.0, std: Any = 1.0
) -> Callable[[Arrays], Tensors]:
  """batch -> images (x / max_value - mean) / std, [B, C, H, W] channels last."""
  mean_std = [torch.tensor(np.asarray(x, np.float32)) for x in (mean, std)]

  def ready(batch: Arrays) -> Tensors:
    found = tensors(batch)
    image_BHWC = found['image'].float() / data.max_value
    image_BHWC = (image_BHWC - mean_std[0]) / mean_std[1]
    return {**found, 'image': image_BHWC.to(dtype).permute(0, 3, 1, 2)}

  return ready


def _classifier(make: Callable[[Any, images.ImageData], nn.Module], flat: bool = False):
  """The task of a classifier of normalised images; `flat`: rows of pixels."""

  def task(built: workloads.Built) -> Task:
    config: Any = built.config
    data = images.images(config.dataset)
    normalised = _scaled(data, dtype_of(config), data.mean, data.std)

    def ready(batch: Arrays) -> Tensors:
      found = dict(normalised(batch))
      if flat:
        found['image'] = models.rows(found['image'])
      return found

    def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
      return F.cross_entropy(model(batch['image']), batch['label'])

    return Task(make(config, data), ready, loss)

  return task


def _mobilenet(config: Any, data: images.ImageData) -> nn.Module:
  strides = strides_for(min(data.shape[:2]), STRIDES)
  shape = mobilenet_v2(config.width, depth=config.depth, strides=strides)
  return convnets.MobileNetV2(
    data.shape[-1],
    shape.stages,
    shape.stem,
    shape.stem_stride,
    shape.last,
    data.num_classes,
  )


def _sentences(make: Callable[[Any, int], nn.Module]):
  """The task of a classifier of full rows of tokens; `make`: (config, words)."""

  def task(built: workloads.Built) -> Task:
    words = shapes_of(built)['embedding']['embedding'].shape[0]

    def ready(batch: Arrays) -> Tensors:
      if not batch['tokens'].all():
        raise ValueError('Padding is not allowed: the model reads all of a row.')
      return tensors(batch)

    def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
      return F.cross_entropy(model(batch['tokens']), batch['label'])

    return Task(make(built.config, words), ready, loss)

  return task


def _seq2seq(built: workloads.Built) -> Task:
  c: Any = built.config
  words = shapes_of(built)['source_embedding']['embedding'].shape[0]

  def ready(batch: Arrays) -> Tensors:
    if not (batch['source'].all() and batch['target'].all()):
      raise ValueError('Padding is not allowed: the model reads all of a row.')
    found = tensors(batch)
    target_BT = found['target']
    begin_B1 = torch.zeros_like(target_BT[:, :1])
    return {
      'source': found['source'],
      'input': torch.cat([begin_B1, target_BT[:, :-1]], 1),
      'target': target_BT.flatten(),
    }

  def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
    logits_BTV = model(batch['source'], batch['input'])
    return F.cross_entropy(logits_BTV.flatten(0, 1), batch['target'])

  return Task(models.Seq2Seq(words, c.net.embedding, c.net.features), ready, loss)


def _gpt(built: workloads.Built) -> Task:
  c: Any = built.config
  size = shapes_of(built)['token']['embedding'].shape[0]
  sizes = c.context, c.num_layers, c.num_heads, c.width

  def ready(batch: Arrays) -> Tensors:
    token_BW = tensors(batch)['token']
    return {'input': token_BW[:, :-1].contiguous(), 'target': token_BW[:, 1:].flatten()}

  def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
    return F.cross_entropy(model(batch['input']).flatten(0, 1), batch['target'])

  return Task(models.GPT(size, *sizes, c.use_bias), ready, loss)


def _vae(built: workloads.Built) -> Task:
  c: Any = built.config
  data = images.images(c.dataset)
  scaled = _scaled(data, dtype_of(c))
  (features,) = c.features

  def ready(batch: Arrays) -> Tensors:
    return {'image': models.rows(scaled(batch)['image'])}

  def draw(batch: Tensors) -> Tensors:
    image = batch['image']
    return {'z': torch.randn(len(image), c.latents, dtype=image.dtype)}

  def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
    image = batch['image']
    logits, mean, log_var = model(image, noise['z'])
    pixels = F.binary_cross_entropy_with_logits(logits, image, reduction='sum')
    kl = (mean.square() + torch.expm1(log_var) - log_var).sum() / 2
    return (pixels + kl) / len(image)

  return Task(
    models.VAE(int(np.prod(data.shape)), features, c.latents), ready, loss, draw
  )


def _players(built: workloads.Built) -> Task:
  c: Any = built.config
  data = images.images(c.dataset)
  channels = data.shape[-1]
  model = nn.ModuleDict(
    {
      'g': models.Generator(c.noise, c.generator_width, channels),
      'd': models.Discriminator(c.discriminator_width, channels),
    }
  )
  scaled = _scaled(data, dtype_of(c))

  def ready(batch: Arrays) -> Tensors:
    return {'image': 2 * scaled(batch)['image'] - 1}

  def draw(batch: Tensors) -> Tensors:
    image = batch['image']
    return {'z': torch.randn(len(image), c.noise, dtype=image.dtype)}

  def fooled(model: Any, fake: Tensor, noise: Tensors) -> Tensor:
    return -F.logsigmoid(model['d'](fake, None)).mean()

  return Task(model, ready, fooled, draw)


def critic_loss(model: Any, real: Tensor, fake: Tensor) -> Tensor:
  real_B, fake_B = model['d'](real, 'real'), model['d'](fake, 'fake')
  return -F.logsigmoid(real_B).mean() - F.logsigmoid(-fake_B).mean()


def _ddpm(built: workloads.Built) -> Task:
  c: Any = built.config
  data = images.images(c.dataset)
  num_steps = c.diffusion.num_steps
  schedule = diffusion.SCHEDULES[c.diffusion.schedule](num_steps)
  table = lambda x: torch.tensor(x, dtype=torch.float32)
  signal_T, noise_T = table(schedule.signal_T), table(schedule.noise_T)
  scaled = _scaled(data, torch.float32)

  def ready(batch: Arrays) -> Tensors:
    return {'image': 2 * scaled(batch)['image'] - 1}

  def draw(batch: Tensors) -> Tensors:
    """Noise, and steps on a grid that one number shifts."""
    image = batch['image']
    grid_B = torch.arange(len(image)) / len(image)
    t_B = ((torch.rand(()) + grid_B) % 1 * c.diffusion.num_steps).long()
    return {
      't': t_B.clamp(max=c.diffusion.num_steps - 1),
      'eps': torch.randn_like(image),
    }

  def loss(model: nn.Module, batch: Tensors, noise: Tensors) -> Tensor:
    x_0, t_B, eps = batch['image'], noise['t'], noise['eps']
    signal, sigma = (x[t_B][:, None, None, None] for x in (signal_T, noise_T))
    x_t = signal * x_0 + sigma * eps
    target = signal * eps - sigma * x_0
    dtype = dtype_of(c)
    return F.mse_loss(model(x_t.to(dtype), t_B), target.to(dtype))

  return Task(UNet(data.shape[-1], c.unet.channels), ready, loss, draw)


TASKS: dict[str, Callable[[workloads.Built], Task]] = {
  'mlp': _classifier(
    lambda c, data: models.MLP(
      (int(np.prod(data.shape)), *c.features, data.num_classes)
    ),
    flat=True,
  ),
  'cnn': _classifier(
    lambda c, data: models.CNN(data.shape, c.features, c.dense, data.num_classes)
  ),
  'resnet': _classifier(
    lambda c, data: models.ResNet18(c.width, data.num_classes, data.shape[-1])
  ),
  'densenet': _classifier(
    lambda c, data: convnets.DenseNet(
      data.shape[-1], c.depth, c.growth, c.bottleneck, data.num_classes
    )
  ),
  'convnext': _classifier(
    lambda c, data: convnets.ConvNeXt(
      data.shape[-1],
      c.blocks,
      c.features,
      c.patch,
      c.layer_scale is not None,
      data.num_classes,
    )
  ),
  'mobilenet': _classifier(_mobilenet),
  'vit': _classifier(
    lambda c, data: models.ViT(
      data.shape, c.patch, c.num_layers, c.num_heads, c.width, data.num_classes
    )
  ),
  'sst2': _sentences(
    lambda c, words: models.TextClassifier(words, c.embedding, c.features[0], 2)
  ),
  'text_cnn': _sentences(
    lambda c, words: models.TextCNN(words, c.embedding, c.widths, c.filters, 2)
  ),
  'translation': _seq2seq,
  'char_gpt': _gpt,
  'gcn': graphs.gcn,
  'gat': graphs.gat,
  'vae': _vae,
  'dcgan': _players,
  'ddpm': _ddpm,
}
