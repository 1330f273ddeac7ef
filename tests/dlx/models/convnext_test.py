"""Sizes of ConvNeXt, shapes of its stages, and its values against torch."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.convnext import ConvNeXt, convnext
from tests.dlx.models import by_shape

IMAGE = (224, 224, 3)


def drawn(model, x, seed=1):
  """Variables near their initial ones, with biases and scales that count."""
  variables = jax.jit(lambda x: model.init(jax.random.key(seed), x, train=False))(x)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: p + jnp.asarray(0.2 * rng.normal(size=p.shape), p.dtype), variables
  )


class SizesTest(parameterized.TestCase):
  # Table 9 of the paper; the exact numbers are those of the authors' code.
  @parameterized.parameters(
    ('tiny', 28589128, '28.6', '4.5'),
    ('small', 50223688, '50.2', '8.7'),
    ('base', 88591464, '88.6', '15.4'),
  )
  def test_parameters_and_multiply_adds(self, size, parameters, millions, billions):
    model = convnext(size, num_outputs=1000)
    self.assertEqual(by_shape.parameters(model, IMAGE), parameters)
    self.assertEqual(f'{parameters / 1e6:.1f}', millions)
    found = by_shape.multiply_adds(model, IMAGE)
    self.assertEqual(f'{found / 1e9:.1f}', billions)
    if size == 'tiny':  # Products with padding, of depthwise filters alone.
      traced = by_shape.multiply_adds_traced(model, IMAGE)
      self.assertBetween(traced / found, 0.99, 1)

  def test_shapes_of_the_stages(self):
    seen = by_shape.maps(convnext('tiny'), IMAGE)
    for i, (side, channels) in enumerate(((56, 96), (28, 192), (14, 384), (7, 768)), 1):
      for j in (1, 3):
        block = f'stage{i}_block{j}'
        self.assertEqual(seen[block], (side, side, channels))
        self.assertEqual(seen[f'{block}/expand'][-1], 4 * channels)
    self.assertEqual(seen['norm'], (768,))

  def test_refuses_what_does_not_fit(self):
    with self.assertRaisesRegex(ConfigError, 'size=huge is not allowed: .*tiny'):
      convnext('huge')
    model = ConvNeXt((1, 1), (2, 4), patch=2)
    with self.assertRaisesRegex(ConfigError, '3 x 8 are not allowed with patch=2'):
      jax.eval_shape(lambda: model.init_with_output(
        jax.random.key(0), jnp.zeros((1, 3, 8, 1)), train=False
      ))  # fmt: skip


class ValuesTest(absltest.TestCase):
  def test_a_layer_scale_of_zero_leaves_stem_and_steps_alone(self):
    """Without steps between stages: the normalised mean of the stem."""
    model = ConvNeXt((2,), (5,), patch=2, layer_scale=0.0)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 3))
    variables = model.init(jax.random.key(1), x, train=False)
    found = model.apply(variables, x, method='features')
    stem: Any = variables['params']['stem']
    # Patches by hand; the fifth row of pixels is left over.
    x_BP = x[:, :4].reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    y = (
      jnp.einsum('bhwijc,ijco->bhwo', x_BP, stem['kernel'])
      + stem['bias'][None, None, None]
    )
    normal = lambda y: (
      (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-6)
    )
    np.testing.assert_allclose(found, normal(normal(y).mean((1, 2))), atol=1e-5)

  def test_paths_drop_whole_branches_of_examples_in_training_alone(self):
    # One block of two is dropped or not; the first never is: its rate is 0.
    model = ConvNeXt((2,), (4,), patch=2, layer_scale=1.0, drop_path=0.5)
    x = jnp.broadcast_to(
      jax.random.normal(jax.random.key(0), (1, 8, 8, 1)), (64, 8, 8, 1)
    )
    variables = drawn(model, x)

    @jax.jit
    def run(variables, x):
      key = jax.random.key(3)
      trained = model.apply(variables, x, train=True, rngs={'dropout': key})
      return trained, model.apply(variables, x, train=False)

    trained, still = run(variables, x)
    np.testing.assert_allclose(still, jnp.broadcast_to(still[:1], still.shape), 1e-5)
    kinds = {tuple(row) for row in np.round(np.asarray(trained), 3).tolist()}
    self.assertLen(kinds, 2)

  def test_values_and_gradients_are_those_of_torch(self):
    """A module with the names of the authors' checkpoints takes ours by the mapping."""
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    nn = torch.nn
    blocks, channels = (1, 2), (4, 6)
    model = ConvNeXt(blocks, channels, patch=2, kernel=5, num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    params = drawn(model, x)['params']

    class Block(nn.Module):
      def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim))

      def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)

    class FirstLayerNorm(nn.LayerNorm):
      def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Net(nn.Module):
      def __init__(self):
        super().__init__()
        stem = nn.Conv2d(3, channels[0], 2, stride=2)
        norms = [FirstLayerNorm(channels[0], eps=1e-6) for _ in range(2)]
        down = nn.Conv2d(channels[0], channels[1], 2, stride=2)
        self.downsample_layers = nn.ModuleList(
          [nn.Sequential(stem, norms[0]), nn.Sequential(norms[1], down)]
        )
        self.stages = nn.ModuleList(
          nn.Sequential(*(Block(c) for _ in range(n)))
          for n, c in zip(blocks, channels, strict=True)
        )
        self.norm = nn.LayerNorm(channels[-1], eps=1e-6)
        self.head = nn.Linear(channels[-1], 3)

      def forward(self, x):
        for step, stage in zip(self.downsample_layers, self.stages, strict=True):
          x = stage(step(x))
        return self.head(self.norm(x.mean([-2, -1])))

    tensor = lambda a: torch.tensor(np.asarray(a))
    state = {}

    def put(name, layer):
      if 'scale' in layer:
        weight = layer['scale']
      elif 'pwconv' in name or name == 'head':
        weight = layer['kernel'].reshape(-1, layer['kernel'].shape[-1]).T
      else:
        weight = layer['kernel'].transpose(3, 2, 0, 1)
      state[f'{name}.weight'], state[f'{name}.bias'] = map(
        tensor, (weight, layer['bias'])
      )

    put('downsample_layers.0.0', params['stem'])
    put('downsample_layers.0.1', params['stem_norm'])
    put('downsample_layers.1.0', params['down2_norm'])
    put('downsample_layers.1.1', params['down2'])
    for i, count in enumerate(blocks):
      for j in range(count):
        block, name = params[f'stage{i + 1}_block{j + 1}'], f'stages.{i}.{j}'
        put(f'{name}.dwconv', block['depthwise'])
        put(f'{name}.norm', block['norm'])
        put(f'{name}.pwconv1', block['expand'])
        put(f'{name}.pwconv2', block['project'])
        state[f'{name}.gamma'] = tensor(block['layer_scale'])
    put('norm', params['norm'])
    put('head', params['head'])
    net = Net()
    net.load_state_dict(state, strict=True)

    def loss(params, x):
      y = model.apply({'params': params}, x, train=True)
      return jnp.sin(y).sum(), y

    grads, found = jax.jit(jax.grad(loss, has_aux=True))(params, x)
    y = net(tensor(x).permute(0, 3, 1, 2))
    torch.sin(y).sum().backward()
    np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-4, atol=1e-5)
    gradient = dict(net.named_parameters())
    np.testing.assert_allclose(
      grads['stage1_block1']['depthwise']['kernel'].transpose(3, 2, 0, 1),
      gradient['stages.0.0.dwconv.weight'].grad.numpy(),
      rtol=1e-3,
      atol=1e-4,
    )
    np.testing.assert_allclose(
      grads['stem']['kernel'].transpose(3, 2, 0, 1),
      gradient['downsample_layers.0.0.weight'].grad.numpy(),
      rtol=1e-3,
      atol=1e-4,
    )


if __name__ == '__main__':
  absltest.main()
