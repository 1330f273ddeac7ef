"""Sizes of MobileNet v2 and EfficientNet, their stages, and values against torch."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.efficientnet import SIZES, efficientnet
from dlx.models.inverted_residual import InvertedResidualNet, Stage, rounded
from dlx.models.mobilenet import mobilenet_v2
from tests.dlx.models import by_shape


class SizesTest(parameterized.TestCase):
  # Table 4 of MobileNet v2, Table 2 of EfficientNet. The exact numbers are those of the
  # libraries that publish weights; 3.4 M and 9.2 M of the papers are 3.50 and 9.11 in
  # them, and 0.70 G of B1 and 1.0 G of B2 are 0.69 and 0.99.
  @parameterized.parameters(
    ('mobilenet', 1.0, 224, 3504872, '0.30'),
    ('mobilenet', 1.4, 224, 6108776, '0.58'),
    ('efficientnet', 'b0', 224, 5288548, '0.39'),
    ('efficientnet', 'b1', 240, 7794184, '0.69'),
    ('efficientnet', 'b2', 260, 9109994, '0.99'),
  )
  def test_parameters_and_multiply_adds(self, name, size, side, parameters, billions):
    family = {'mobilenet': mobilenet_v2, 'efficientnet': efficientnet}[name]
    model, image = family(size, num_outputs=1000), (side, side, 3)
    if name == 'efficientnet':
      self.assertEqual(SIZES[size].image, side)
    self.assertEqual(by_shape.parameters(model, image), parameters)
    found = by_shape.multiply_adds(model, image)
    self.assertEqual(f'{found / 1e9:.2f}', billions)
    if size in (1.0, 'b0'):
      traced = by_shape.multiply_adds_traced(model, image)
      self.assertBetween(traced / found, 0.985, 1)

  def test_shapes_of_the_stages(self):
    seen = by_shape.maps(mobilenet_v2(num_outputs=1000), (224, 224, 3))
    sides, channels = (112, 56, 28, 14, 14, 7, 7), (16, 24, 32, 64, 96, 160, 320)
    for i, (side, width, blocks) in enumerate(
      zip(sides, channels, (1, 2, 3, 4, 3, 3, 1), strict=True), 1
    ):
      self.assertNotIn(f'stage{i}_block{blocks + 1}', seen)
      for j in (1, blocks):
        self.assertEqual(seen[f'stage{i}_block{j}'], (side, side, width))
    self.assertEqual(seen['last'], (7, 7, 1280))
    # Six times the channels of the block's input.
    self.assertEqual(seen['stage3_block1/expand'][-1], 144)
    self.assertNotIn('stage1_block1/expand', seen)

  def test_compound_scaling(self):
    b2 = efficientnet('b2')
    self.assertEqual([s.channels for s in b2.stages], [16, 24, 48, 88, 120, 208, 352])
    self.assertEqual([s.blocks for s in b2.stages], [2, 3, 3, 4, 4, 5, 2])
    self.assertEqual((b2.stem, b2.last, b2.dropout), (32, 1408, 0.3))
    b1 = efficientnet('b1', depth=0.5, width=0.5)
    self.assertEqual([s.blocks for s in b1.stages], [1, 2, 2, 2, 2, 3, 1])
    self.assertEqual([s.channels for s in b1.stages], [8, 16, 24, 40, 56, 96, 160])

  def test_rounding_to_multiples_of_8(self):
    found = {c: rounded(c) for c in (1, 8, 11, 12, 17.6, 19.9, 26.4, 35.2, 44.8)}
    # 11: 8 would be more than a tenth below; 17.6: 16 is not.
    wanted = {1: 8, 8: 8, 11: 16, 12: 16, 17.6: 16, 19.9: 24, 26.4: 24, 35.2: 32}
    self.assertEqual(found, {**wanted, 44.8: 48})

  def test_refuses_what_does_not_fit(self):
    for make in (mobilenet_v2, efficientnet):
      with self.assertRaisesRegex(ConfigError, 'depth=0 is not allowed'):
        make(depth=0)
      with self.assertRaisesRegex(ConfigError, 'must be 8, of the stem'):
        make(strides=(1, 1))
    with self.assertRaisesRegex(ConfigError, 'size=b9 is not allowed: .*b0, b1, b2'):
      efficientnet('b9')


STAGES = (Stage(1, 4, 1, 1, 3), Stage(3, 6, 2, 2, 5))


def net(**fields):
  fields = {'stem': 4, 'last': 8, 'num_outputs': 3, 'dropout': 0.0, **fields}
  return InvertedResidualNet(STAGES, **fields)


def drawn(model, x):
  """Variables near their initial ones, with biases and scales that count."""
  variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)
  rng = np.random.default_rng(1)
  move = lambda p: p + jnp.asarray(0.2 * rng.uniform(size=p.shape), p.dtype)
  return jax.tree.map(move, variables)


class ValuesTest(parameterized.TestCase):
  def test_a_projection_of_zero_leaves_the_input(self):
    """Where shapes are equal; elsewhere nothing is left, as there is no shortcut."""
    model = net()
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = drawn(model, x)
    params = dict(variables['params'])
    for name in ('stage1_block1', 'stage2_block2'):
      block = dict(params[name])
      block['project_norm'] = jax.tree.map(jnp.zeros_like, block['project_norm'])
      params[name] = block
    run = jax.jit(lambda variables: model.apply(
      variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )[1]['intermediates'])  # fmt: skip
    seen = run({**variables, 'params': params})
    out = lambda name: seen[name]['__call__'][0]
    np.testing.assert_array_equal(out('stage2_block2'), out('stage2_block1'))
    stem = jnp.minimum(out('stem_norm'), 6)
    np.testing.assert_array_equal(out('stage1_block1'), stem)

  @parameterized.parameters('relu6', 'silu')
  def test_values_and_gradients_are_those_of_torch(self, activation):
    """A module with torchvision's names takes ours by the mapping that is stated."""
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    nn = torch.nn
    squeeze = 0.5 if activation == 'silu' else 0.0
    model = net(activation=activation, squeeze=squeeze)
    x = jax.random.normal(jax.random.key(0), (2, 9, 8, 3))
    variables = drawn(model, x)
    act = nn.SiLU if activation == 'silu' else nn.ReLU6

    def conv(inputs, outputs, kernel, stride=1, groups=1):
      return nn.Sequential(
        nn.Conv2d(
          inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
        act(),
      )

    class Squeeze(nn.Module):
      def __init__(self, wide, narrow):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(wide, narrow, 1), nn.Conv2d(narrow, wide, 1)

      def forward(self, x):
        s = self.fc1(x.mean((2, 3), keepdim=True))
        return x * torch.sigmoid(self.fc2(nn.functional.silu(s)))

    class Block(nn.Module):
      def __init__(self, inputs, stage, first):
        super().__init__()
        wide = inputs * stage.expansion
        parts = [conv(inputs, wide, 1)] if stage.expansion != 1 else []
        stride = stage.stride if first else 1
        parts.append(conv(wide, wide, stage.kernel, stride, wide))
        if squeeze:
          parts.append(Squeeze(wide, int(squeeze * inputs)))
        parts += [conv(wide, stage.channels, 1)[0], nn.BatchNorm2d(stage.channels)]
        self.conv = nn.Sequential(*parts)
        self.skips = stride == 1 and inputs == stage.channels

      def forward(self, x):
        return x + self.conv(x) if self.skips else self.conv(x)

    class Net(nn.Module):
      def __init__(self):
        super().__init__()
        parts, inputs = [conv(3, 4, 3, 2)], 4
        for stage in STAGES:
          for j in range(stage.blocks):
            parts.append(Block(inputs, stage, j == 0))
            inputs = stage.channels
        self.features = nn.Sequential(*parts, conv(inputs, 8, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(8, 3))

      def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))

    theirs, state = Net(), {}
    tensor = lambda a: torch.tensor(np.asarray(a))
    params, kept = variables['params'], variables['batch_stats']

    def put(name, layer, statistics=None):
      if statistics is not None:
        state[f'{name}.weight'] = tensor(layer['scale'])
        state[f'{name}.running_mean'] = tensor(statistics['mean'])
        state[f'{name}.running_var'] = tensor(statistics['var'])
        state[f'{name}.num_batches_tracked'] = torch.tensor(0)
      else:
        kernel = layer['kernel']
        order = (1, 0) if kernel.ndim == 2 else (3, 2, 0, 1)
        state[f'{name}.weight'] = tensor(kernel.transpose(order))
      if 'bias' in layer:
        state[f'{name}.bias'] = tensor(layer['bias'])

    def put_normed(name, ours, params, kept):
      put(f'{name}.0', params[ours])
      put(f'{name}.1', params[f'{ours}_norm'], kept[f'{ours}_norm'])

    put_normed('features.0', 'stem', params, kept)
    blocks = ('stage1_block1', 'stage2_block1', 'stage2_block2')
    for number, block in enumerate(blocks, 1):
      name, at = f'features.{number}.conv', 0
      for ours in ('expand', 'depthwise'):
        if ours in params[block]:
          put_normed(f'{name}.{at}', ours, params[block], kept[block])
          at += 1
      if squeeze:
        put(f'{name}.{at}.fc1', params[block]['squeeze']['reduce'])
        put(f'{name}.{at}.fc2', params[block]['squeeze']['expand'])
        at += 1
      put(f'{name}.{at}', params[block]['project'])
      norm = 'project_norm'
      put(f'{name}.{at + 1}', params[block][norm], kept[block][norm])
    put_normed('features.4', 'last', params, kept)
    put('classifier.1', params['head'])
    theirs.load_state_dict(state, strict=True)

    def loss(params, train):
      y, new = model.apply(
        {'params': params, 'batch_stats': kept}, x, train=train, mutable=['batch_stats']
      )
      return jnp.sin(y).sum(), (y, new)

    slopes = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    inputs = tensor(x).permute(0, 3, 1, 2)
    for train in (False, True):
      grads, (found, new) = slopes(params, train)
      theirs.train(train)
      theirs.zero_grad()
      y = theirs(inputs)
      torch.sin(y).sum().backward()
      # Some 10 layers, each of which divides by deviations of few values: 1e-3.
      np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-3, atol=1e-4)
      of = dict(theirs.named_parameters())
      np.testing.assert_allclose(
        grads['stage2_block1']['depthwise']['kernel'].transpose(3, 2, 0, 1),
        of['features.2.conv.1.0.weight'].grad.numpy(),
        rtol=1e-2,
        atol=1e-3,
      )
    mean = theirs.features[2].conv[1][1].running_mean.numpy()
    found = new['batch_stats']['stage2_block1']['depthwise_norm']['mean']
    np.testing.assert_allclose(found, mean, rtol=1e-4, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
