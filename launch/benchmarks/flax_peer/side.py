"""Plain Flax: one jitted step, optax, a NumPy batch handed over at every step."""

from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import diffusion
from dlx.data.sets import images
from dlx.layers.transformer import matrices
from dlx.optim import by_path
from launch.benchmarks import workloads
from launch.benchmarks.flax_peer import models, unet

Array = jax.Array
Noise = Mapping[str, np.ndarray]


def cross_entropy(logits, label):
  """The mean over all rows."""
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
  return losses.mean()


def binary(logits, target: float):
  """The mean of sigmoid cross-entropy with one target."""
  return optax.sigmoid_binary_cross_entropy(logits, target).mean()


class Side:
  """A workload in plain Flax.

  Attributes:
    params: of the model; of both players under 'g' and 'd'.
    stats: running statistics likewise.
  """

  def __init__(
    self,
    name: str,
    rates: Sequence[float] | None = None,
    compiler_options: Mapping[str, Any] | None = None,
    **fields: Any,
  ):
    """Builds it.

    Args:
      name: of the workload.
      rates: learning rates of the first steps; None: the config's, constant.
      compiler_options: of XLA.
      fields: of the Config, in place of the workload's.
    """
    options: Any = None if compiler_options is None else dict(compiler_options)
    built = workloads.build(name, **fields)
    self._name = name
    self._config: Any = built.config
    self._workload = workloads.WORKLOADS[name]
    self._batches = workloads.batches(built, 1 if name == 'gcn' else 4)
    self._model = _model(name, built)
    self._schedule = diffusion.cosine_schedule(1000)
    self._mean_std = mean_std(self._workload.experiment, built.config)
    key = jax.random.key(0)
    self._key, self._count = key, 0
    variables = jax.jit(self._init, compiler_options=options)(key)
    self.params, self.stats = variables['params'], variables['batch_stats']
    rate = self._config.lr
    if rates is not None:
      rate = lambda count: jnp.asarray(rates)[count]
    self._tx = _optimiser(name, built.config, rate)
    self._opt_state = self._start()
    self._jitted = jax.jit(self._train, compiler_options=options)

  def _init(self, key):
    batch = self._batches[0]
    parts = {}
    if self._name == 'dcgan':
      generator, discriminator = self._model
      z = jnp.zeros((2, self._config.noise))
      parts['g'] = generator.init(key, z)
      parts['d'] = discriminator.init(key, jnp.zeros((2, 28, 28, 1)))
      pick = lambda name: {k: dict(v).get(name, {}) for k, v in parts.items()}
      return {'params': pick('params'), 'batch_stats': pick('batch_stats')}
    inputs = self._inputs(batch, self._draw(key, batch))
    variables = dict(self._model.init(key, *inputs))
    return {'params': variables['params'], 'batch_stats': variables.get('batch_stats')}

  def _start(self):
    if self._name != 'dcgan':
      return self._tx.init(self.params)
    return {player: self._tx.init(p) for player, p in self.params.items()}

  def load(self, params: Any, stats: Any):
    """Takes the parameters and statistics of dlx's model."""
    params, stats = renamed(self._name, params), renamed(self._name, stats)
    for old, new in ((self.params, params), (self.stats or {}, stats or {})):
      shapes = lambda tree: jax.tree.map(jnp.shape, tree)
      if shapes(old) != shapes(new):
        raise ValueError(f'{self._name}: {shapes(new)} is not {shapes(old)}')
    self.params, self.stats = params, stats or None
    self._opt_state = self._start()

  def step(self, n: int) -> float:
    """n steps with noise of its own; the last loss. One sync, at the end."""
    loss = jnp.zeros(())
    for _ in range(n):
      self._key, key = jax.random.split(self._key)
      batch = self._batches[self._count % len(self._batches)]
      self._count += 1
      self.params, self.stats, self._opt_state, loss = self._jitted(
        self.params, self.stats, self._opt_state, batch, key
      )
    return float(loss)

  def losses(
    self, batches: Sequence[Any], noise: Sequence[Noise | None]
  ) -> list[float]:
    """The loss of each of some given steps."""
    found = []
    for batch, drawn in zip(batches, noise, strict=True):
      self.params, self.stats, self._opt_state, loss = self._jitted(
        self.params, self.stats, self._opt_state, batch, self._key, drawn
      )
      found.append(float(loss))
    return found

  # The step.

  def _train(self, params, stats, opt_state, batch, key, noise=None):
    noise = self._draw(key, batch) if noise is None else noise
    if self._name == 'dcgan':
      return self._two_players(params, stats, opt_state, batch, noise)
    loss_fn = lambda params: self._loss(params, stats, batch, noise)
    (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    updates, opt_state = self._tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), stats, opt_state, loss

  def _loss(self, params, stats, batch, noise):
    variables = {'params': params}
    inputs = self._inputs(batch, noise)
    if stats:
      out, new = self._model.apply(
        {**variables, 'batch_stats': stats}, *inputs, mutable=['batch_stats']
      )
      stats = new['batch_stats']
    else:
      out = self._model.apply(variables, *inputs)
    name, config = self._name, self._config
    if name == 'vae':
      logits, mean, log_var = out
      image = batch['image'] / 255.0
      bce = optax.sigmoid_binary_cross_entropy(logits, image).sum()
      kl = -0.5 * (1 + log_var - mean**2 - jnp.exp(log_var)).sum()
      return (bce + kl) / len(image), stats
    out = out.astype(jnp.float32)
    if name == 'ddpm':
      return jnp.mean((out - self._noised(batch, noise)[1]) ** 2), stats
    if name == 'gcn':
      weight = batch['train']
      losses = optax.softmax_cross_entropy_with_integer_labels(out, batch['label'])
      l2 = config.weight_decay / 2 * (params['kernel_0'] ** 2).sum()
      return (losses * weight).sum() / weight.sum() + l2, stats
    if name.startswith('char_gpt'):
      return cross_entropy(out, batch['token'][:, 1:]), stats
    return cross_entropy(out, batch['label']), stats

  def _inputs(self, batch, noise) -> tuple[Any, ...]:
    name = self._name
    if name == 'vae':
      return batch['image'] / 255.0, noise['z']
    if name == 'ddpm':
      return self._noised(batch, noise)[0], noise['t'].astype(jnp.float32)
    if name == 'gcn':
      return batch, 1433
    if name.startswith('char_gpt'):
      return (batch['token'][:, :-1],)
    if name == 'lstm':
      return (batch['tokens'],)
    mean, std = self._mean_std
    return ((batch['image'] / 255.0 - mean) / std,)

  def _noised(self, batch, noise):
    """(x_t, the target v) of arXiv:2202.00512."""
    x, eps = 2 * (batch['image'] / 255.0) - 1, noise['eps']
    at = lambda table: jnp.asarray(table)[noise['t']][:, None, None, None]
    signal, sigma = at(self._schedule.signal_T), at(self._schedule.noise_T)
    return signal * x + sigma * eps, signal * eps - sigma * x

  def _draw(self, key, batch) -> dict[str, Array]:
    a, b = jax.random.split(key)
    rows = len(batch['label']) if 'label' in batch else 0
    if self._name == 'vae':
      return {'z': jax.random.normal(key, (rows, self._config.latents))}
    if self._name == 'dcgan':
      return {'z': jax.random.normal(key, (rows, self._config.noise))}
    if self._name == 'ddpm':
      eps = jax.random.normal(b, batch['image'].shape)
      return {'t': jax.random.randint(a, (rows,), 0, 1000), 'eps': eps}
    return {}

  def _two_players(self, params, stats, opt_state, batch, noise):
    generator, discriminator = self._model
    real, z = 2 * (batch['image'] / 255.0) - 1, noise['z']
    some = {'mutable': ['batch_stats']}
    params, stats, opt_state = dict(params), dict(stats), dict(opt_state)

    def see(p, stats, image):
      return discriminator.apply({'params': p, 'batch_stats': stats}, image, **some)

    def make(p):
      return generator.apply({'params': p, 'batch_stats': stats['g']}, z, **some)

    fake, _ = make(params['g'])

    def d_loss(p):
      on_real, new = see(p, stats['d'], real)
      on_fake, new = see(p, new['batch_stats'], fake)
      return binary(on_real, 1.0) + binary(on_fake, 0.0), new['batch_stats']

    (loss, stats['d']), grads = jax.value_and_grad(d_loss, has_aux=True)(params['d'])
    updates, opt_state['d'] = self._tx.update(grads, opt_state['d'], params['d'])
    params['d'] = optax.apply_updates(params['d'], updates)

    def g_loss(p):
      image, new = make(p)
      return binary(see(params['d'], stats['d'], image)[0], 1.0), new['batch_stats']

    (_, stats['g']), grads = jax.value_and_grad(g_loss, has_aux=True)(params['g'])
    updates, opt_state['g'] = self._tx.update(grads, opt_state['g'], params['g'])
    params['g'] = optax.apply_updates(params['g'], updates)
    return params, stats, opt_state, loss


def _model(name: str, built: workloads.Built) -> Any:
  c: Any = built.config
  dtype = jnp.bfloat16 if c.compute_dtype == 'bfloat16' else jnp.float32
  if name.startswith('char_gpt'):
    sizes = c.context, c.num_layers, c.num_heads, c.width
    return models.GPT(65, *sizes, dtype)
  if name == 'dcgan':
    generator = models.Generator(c.generator_width)
    return generator, models.Discriminator(c.discriminator_width)
  if name == 'lstm':
    shapes = jax.eval_shape(built.experiment.init, jax.random.key(0)).params
    words = shapes['embedding']['embedding'].shape[0]
    return models.LSTM(words, c.embedding, c.features[0], dtype)
  make = {
    'mlp': lambda: models.MLP(c.features, dtype),
    'cnn': lambda: models.CNN(c.features, c.dense, dtype),
    'resnet18': lambda: models.ResNet18(c.width, dtype),
    'vit': lambda: models.ViT(c.patch, c.num_layers, c.num_heads, c.width, dtype),
    'gcn': lambda: models.GCN(c.features, 7),
    'vae': lambda: models.VAE(c.features[0], c.latents),
    'ddpm': lambda: unet.UNet(c.unet.channels, dtype),
  }
  return make[name]()


def _optimiser(name: str, c: Any, rate: Any) -> optax.GradientTransformation:
  if name == 'resnet18':
    kernels = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    decay = optax.add_decayed_weights(c.weight_decay, kernels)
    return optax.chain(decay, optax.sgd(rate, c.momentum))
  if name.startswith('char_gpt'):
    return optax.adamw(
      rate, c.beta1, c.beta2, weight_decay=c.weight_decay, mask=matrices
    )
  if name == 'vit':
    return optax.adamw(rate, 0.9, c.beta2, weight_decay=c.weight_decay, mask=matrices)
  adam = optax.adam(rate, c.b1 if name == 'dcgan' else 0.9)
  if name == 'lstm':
    # One bias a gate, where dlx (and torch) have two with the same gradient.
    twice = lambda params: by_path('cell/.*/bias')(params)
    return optax.chain(adam, optax.masked(optax.scale(2.0), twice))
  return adam


def mean_std(experiment: str, config: Any) -> tuple[np.ndarray, np.ndarray]:
  """Of an image workload's set, by channel; 0 and 1 for others."""
  if experiment not in ('mlp', 'cnn', 'resnet', 'vit'):
    return np.zeros(1), np.ones(1)
  data = images.images(config.dataset)
  return np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32)


def renamed(name: str, tree: Any) -> Any:
  """dlx's tree of parameters or statistics, as the models of flax_models name it."""
  tree = jax.tree.map(jnp.asarray, dict(tree))
  if name == 'dcgan' and 'g' in tree:
    players = {'g': dict(tree['g']), 'd': dict(tree['d'])}
    # dlx keeps statistics of real images and of samples apart; plain Flax does not.
    players['d'] = players['d'].get('real', players['d'])
    return players
  if name.startswith('char_gpt') or name == 'vit':
    return _loop_of_blocks(tree)
  if name == 'lstm' and 'encoder' in tree:
    return _lstm(tree)
  return tree


def _loop_of_blocks(tree: Any) -> Any:
  if 'transformer' not in tree:
    return tree
  blocks = tree.pop('transformer')['blocks']
  for i in range(len(jax.tree.leaves(blocks)[0])):
    block = jax.tree.map(lambda x, i=i: x[i], blocks)
    mlp = block.pop('mlp')
    tree[f'block{i}'] = {**block, 'mlp_in': mlp['in'], 'mlp_out': mlp['out']}
  if 'patch' in tree:
    kernel = tree['patch']['kernel']
    side = round((kernel.shape[0] // 3) ** 0.5)
    kernel = kernel.reshape(side, side, 3, -1)
    tree['patch'] = {**tree['patch'], 'kernel': kernel}
  return tree


def _lstm(tree: Any) -> Any:
  """Gates apart, in flax's names; the two biases of a gate as one."""
  layer = tree.pop('encoder')['forward_0']
  gates = ('i', 'f', 'g', 'o')  # torch's order.
  split = lambda x: dict(zip(gates, jnp.split(x, 4, -1), strict=True))
  inputs, hidden = split(layer['input_kernel']), split(layer['hidden_kernel'])
  bias = split(layer['input_bias'] + layer['hidden_bias'])
  cell: dict[str, Any] = {f'i{g}': {'kernel': inputs[g]} for g in gates}
  cell |= {f'h{g}': {'kernel': hidden[g], 'bias': bias[g]} for g in gates}
  return {**tree, 'cell': cell}


def build(name: str, **fields: Any) -> Side:
  """The side of a workload; `fields` of the Config in place of the workload's."""
  return Side(name, **fields)
