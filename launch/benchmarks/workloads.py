"""What is measured: experiments at a fixed size, on generated arrays.

A workload is an experiment of this repository by name, with the fields of its Config
that fix the size, and the ranges of its whole-number arrays. No data is read: arrays of
the shapes that the experiment declares are drawn from a fixed seed, so that a step
costs what it costs on the real set. Dropout, augmentation and averages of parameters
are off on all sides, since peers draw other random numbers; running statistics of batch
norm are kept on all sides.
"""

import dataclasses
import importlib
from typing import Any, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.experiment import Config, Experiment
from dlx.models.seq2seq_config import Seq2SeqConfig
from dlx.models.unet import UNetConfig
from dlx.run import experiments_by_name
from dlx.run.dispatch import get_batch
from dlx.tasks.image_generation import GameConfig
from dlx.tasks.judge import Judge


class Workload(NamedTuple):
  """One row of the table.

  Attributes:
    about: what the model is, for readers of the table.
    experiment: its name.
    fields: of its Config.
    below: exclusive upper bounds of its integer arrays, by the last part of their name;
      'uint8' images lie in 0..255.
  """

  about: str
  experiment: str
  fields: Mapping[str, Any]
  below: Mapping[str, int]


_CLASSES = {'label': 10}
# Of every Config that has them: no schedule that starts at 0, nothing beside the model.
_PLAIN = {
  'num_steps': 100000,
  'warmup_steps': 0,
  'warmup_fraction': 0.0,
  'clip_norm': None,
}

WORKLOADS: dict[str, Workload] = {
  'mlp': Workload(
    '784-256-128-10, batch 128, Adam',
    'mlp',
    {
      'dataset': 'mnist',
      'features': (256, 128),
      'dropout': 0.0,
      'input_dropout': 0.0,
      'batch_norm': False,
      'batch_size': 128,
    },
    _CLASSES,
  ),
  'cnn': Workload(
    'Conv-BN-ReLU 28x28, 32 and 64 channels, batch 128, Adam',
    'cnn',
    {'dataset': 'mnist', 'dropout': 0.0, 'batch_size': 128},
    _CLASSES,
  ),
  'resnet18': Workload(
    'ResNet-18 on 32x32, 3x3 stem, batch 64, SGD with momentum',
    'resnet',
    {
      'dataset': 'cifar10',
      'imagenet': True,
      'depth': 18,
      'width': 64,
      'batch_size': 64,
      'pad': 0,
    },
    _CLASSES,
  ),
  'densenet': Workload(
    'DenseNet of 40 layers, k=12, on 32x32, batch 16, SGD with Nesterov momentum',
    'densenet',
    {
      'dataset': 'cifar10',
      'depth': 40,
      'growth': 12,
      'bottleneck': False,
      'batch_size': 16,
      'pad': 0,
    },
    _CLASSES,
  ),
  'convnext': Workload(
    'ConvNeXt, 40 to 320 channels, patch 2 on 32x32, batch 32, AdamW',
    'convnext',
    {
      'dataset': 'cifar10',
      'blocks': (2, 2, 6, 2),
      'features': (40, 80, 160, 320),
      'patch': 2,
      'layer_scale': 1e-6,
      'batch_size': 32,
      'pad': 0,
    },
    _CLASSES,
  ),
  'mobilenet': Workload(
    'MobileNet v2 of the paper on 32x32, batch 16, AdamW',
    'mobilenet',
    {
      'dataset': 'cifar10',
      'width': 1.0,
      'depth': 1.0,
      'dropout': 0.0,
      'batch_size': 16,
      'pad': 0,
    },
    _CLASSES,
  ),
  'lstm': Workload(
    'LSTM classifier, 64 tokens, 128 wide, batch 64, Adam',
    'sst2',
    {
      'dataset': 'grammar',
      'bucket_lengths': (64,),
      'embedding': 128,
      'features': (128,),
      'embedding_dropout': 0.0,
      'dropout': 0.0,
      'weight_decay': 0.0,
      'batch_size': 64,
    },
    {'label': 2, 'tokens': 60},
  ),
  'text_cnn': Workload(
    'TextCNN, 64 tokens of 128, 100 filters of 3, 4 and 5 words, batch 64, Adam',
    'text_cnn',
    {
      'dataset': 'grammar',
      'bucket_lengths': (64,),
      'embedding': 128,
      'embedding_dropout': 0.0,
      'dropout': 0.0,
      'max_norm': None,
      'weight_decay': 0.0,
      'batch_size': 64,
    },
    {'label': 2, 'tokens': 60},
  ),
  'seq2seq': Workload(
    'LSTM encoder-decoder with attention, 41 to 46 tokens, 256 wide, batch 64, Adam',
    'translation',
    {
      'dataset': 'multi30k',
      'num_words': 8000,
      'net': Seq2SeqConfig(
        cell='lstm', embedding=128, features=256, bidirectional=False
      ),
      'bleu': (),
      'bucket_lengths': (46,),
      'batch_size': 64,
    },
    {'source': 8002, 'target': 8002},
  ),
  'char_gpt': Workload(
    'GPT, 4 layers, 4 heads, 128 wide, context 64, batch 12, AdamW',
    'char_gpt',
    {'dataset': 'tiny_shakespeare', 'batch_size': 12},
    {'token': 65},
  ),
  'char_gpt_large': Workload(
    'GPT, 6 layers, 6 heads, 384 wide, context 256, batch 16, AdamW',
    'char_gpt',
    {
      'dataset': 'tiny_shakespeare',
      'num_layers': 6,
      'num_heads': 6,
      'width': 384,
      'context': 256,
      'unroll': 6,
      'batch_size': 16,
    },
    {'token': 65},
  ),
  'vit': Workload(
    'ViT-tiny: patch 4 on 32x32, 6 layers, 3 heads, 192 wide, batch 64, AdamW',
    'vit',
    {
      'dataset': 'cifar10',
      'patch': 4,
      'num_layers': 6,
      'num_heads': 3,
      'width': 192,
      'pool': 'token',
      'shift': 0.0,
      'batch_size': 64,
    },
    _CLASSES,
  ),
  'gcn': Workload(
    'GCN of two layers on a graph of the size of Cora, sparse features, Adam',
    'gcn',
    {'dataset': 'cora', 'dropout': 0.0},
    {'label': 7},
  ),
  'gat': Workload(
    'GAT of 8 heads of 8 on the same graph, sparse features, Adam',
    'gat',
    {'dataset': 'cora', 'dropout': 0.0},
    {'label': 7},
  ),
  'vae': Workload(
    '784-400-20, batch 128, Adam',
    'vae',
    {
      'dataset': 'mnist',
      'features': (400,),
      'latents': 20,
      'targets': 'grey',
      'batch_size': 128,
    },
    _CLASSES,
  ),
  'dcgan': Workload(
    'DCGAN 28x28, widths 64 and 64, batch 64, both players, Adam',
    'dcgan',
    {
      'dataset': 'mnist',
      'conditional': False,
      'noise': 100,
      'generator_width': 64,
      'discriminator_width': 64,
      'game': GameConfig(real_label=1.0),
      'ema_decay': None,
      'judge': Judge.Config(num_steps=0),
      'batch_size': 64,
    },
    _CLASSES,
  ),
  'ddpm': Workload(
    'U-Net of 28x28 pixels, 32 and 64 channels, batch 64, Adam',
    'ddpm',
    {
      'dataset': 'mnist',
      'conditional': False,
      'label_dropout': 0.0,
      'unet': UNetConfig(channels=(32, 64), patch=1),
      'ema_decay': None,
      'judge': Judge.Config(num_steps=0),
      'batch_size': 64,
    },
    _CLASSES,
  ),
}


# What Keras has the layers for. Its LSTM has one bias a gate where dlx and torch have
# two, and with Adam that is other maths.
KERAS = ('mlp', 'cnn')
# What is written for plain Flax; it was far behind on convolutions wherever it is.
FLAX = tuple(
  name
  for name in WORKLOADS
  if name not in ('densenet', 'convnext', 'mobilenet', 'text_cnn', 'seq2seq', 'gat')
)
ONLY = {'keras': KERAS, 'flax': FLAX}  # Peers that are not of all workloads.

# Fields on an accelerator: its narrow type, and batches that fill it.
ACCELERATOR = {
  name: {'compute_dtype': 'bfloat16', **({} if size is None else {'batch_size': size})}
  for name, size in {
    'mlp': 8192,
    'cnn': 2048,
    'resnet18': 1024,
    'densenet': 1024,
    'convnext': 1024,
    'mobilenet': 1024,
    'lstm': 1024,
    'text_cnn': 1024,
    'seq2seq': 1024,
    'char_gpt': 512,
    'char_gpt_large': 64,
    'vit': 1024,
    'gcn': None,
    'gat': None,
    'vae': 8192,
    'dcgan': 2048,
    'ddpm': 1024,
  }.items()
}


class Built(NamedTuple):
  """A workload, built, and the arrays it reads."""

  experiment: Experiment
  config: Config
  arrays: Mapping[str, np.ndarray]


def build(name: str, **fields: Any) -> Built:
  """The experiment of a workload and generated arrays; nothing is read.

  Args:
    name: one of WORKLOADS.
    fields: of the Config, in place of the workload's.
  """
  workload = WORKLOADS[name]
  module = importlib.import_module(experiments_by_name.module_name(workload.experiment))
  given = {**_known(module, _PLAIN), **workload.fields, **fields}
  config = module.Config(**given).resolved()
  built = module.build(config)
  return Built(built, config, generated(workload, built))


def generated(workload: Workload, built: Experiment) -> dict[str, np.ndarray]:
  """Arrays of the shapes that the training data declares, from a fixed seed."""
  rng = np.random.default_rng(0)
  data: Any = built.train_data
  assert len(data.shapes) == 1  # Of what is measured every step is alike.
  arrays = {}
  for name, x in data.array_shapes().items():
    last = name.partition('/')[0]
    if x.dtype == np.uint8 and last not in workload.below:
      arrays[name] = rng.integers(0, 256, x.shape, np.uint8)
    elif last in workload.below:
      least = int(last in ('tokens', 'source', 'target'))  # Rows without padding.
      arrays[name] = rng.integers(least, workload.below[last], x.shape)
      arrays[name] = arrays[name].astype(x.dtype)
  if workload.experiment in ('gcn', 'gat'):
    arrays |= _graph(data.array_shapes(), rng)
  assert arrays.keys() == data.array_shapes().keys()
  return arrays


def batches(built: Built, count: int) -> list[dict[str, np.ndarray]]:
  """The first batches that the experiment would see, on the host."""
  data = built.experiment.train_data
  arrays = jax.tree.map(jnp.asarray, dict(built.arrays))
  get = jax.jit(lambda arrays, i: get_batch(data, arrays, i, 0))
  return [
    jax.tree.map(np.asarray, dict(get(arrays, jnp.int32(i)))) for i in range(count)
  ]


def _known(module: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
  names = {field.name for field in dataclasses.fields(module.Config)}
  return {name: value for name, value in fields.items() if name in names}


def _graph(shapes: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
  """Random links without loops or repetitions, 140 training nodes, sparse rows."""
  nodes = shapes['label'].shape[-1]
  num_edges = shapes['edges'].shape[-2]
  pairs: set[tuple[int, int]] = set()
  while len(pairs) < num_edges:
    a, b = sorted(rng.integers(0, nodes, 2).tolist())
    if a != b:
      pairs.add((a, b))
  entries = shapes['indices'].shape[-2]
  row_X = np.sort(np.arange(entries) % nodes)
  column_X = rng.integers(0, 1433, entries)
  out = {
    'edges': np.array(sorted(pairs)),
    'indices': np.stack([row_X, column_X], -1),
    'values': np.ones(entries),
  }
  train = np.zeros(nodes, bool)
  train[:140] = True
  out |= {'train': train, 'validation': ~train, 'test': ~train}
  return {
    name: np.asarray(x, shapes[name].dtype).reshape(shapes[name].shape)
    for name, x in out.items()
  }
