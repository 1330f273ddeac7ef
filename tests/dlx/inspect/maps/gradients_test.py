"""Tests for dlx/inspect/maps/gradients.py and occlusion.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Function
from dlx.inspect.maps import gradients
from dlx.inspect.maps.occlusion import occlusion, windows
from tests.dlx.inspect.maps import nets

STATE, IMAGE, CHOSEN = nets.weights(), nets.images(), jnp.array([0, 2, 1])


@pytest.fixture(scope='module')
def model():
  return nets.model()


def by_hand():
  """Maps A and the gradient of a logit by them, float64: 2 A w / places."""
  maps = np.asarray(jax.jit(nets.maps_of)(STATE['params'], IMAGE), np.float64)
  head = np.asarray(STATE['params']['head'], np.float64)[:, CHOSEN].T  # [B, C]
  return maps, 2 * maps * head[:, None, None] / nets.SIZE**2


def close(found, wanted, **options):
  """To float32, of sums of some tens of products."""
  scale = np.abs(wanted).max()
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6 * scale, **options)


def test_grad_cam_is_that_by_hand(model):
  maps, slope = by_hand()
  weight = slope.mean((1, 2))
  wanted = np.maximum((maps * weight[:, None, None]).sum(-1), 0)
  explain = functools.partial(gradients.grad_cam, model, model.layer('conv'))
  close(jax.jit(explain)(STATE, IMAGE, CHOSEN), wanted)
  assert 0 < (wanted > 0).mean() < 1


def test_grad_cam_pp_is_that_by_hand(model):
  maps, slope = by_hand()
  wanted = np.zeros(maps.shape[:3])
  for b, row in enumerate(maps):  # Formula 19, place by place and channel by channel.
    for c in range(4):
      weight = 0.0
      for g in slope[b, :, :, c].ravel():
        if below := 2 * g**2 + row[:, :, c].sum() * g**3:
          weight += g**2 / below * max(g, 0)
      wanted[b] += weight * row[:, :, c]
  wanted = np.maximum(wanted, 0)
  explain = functools.partial(gradients.grad_cam_pp, model, model.layer('conv'))
  close(jax.jit(explain)(STATE, IMAGE, CHOSEN), wanted)


def test_a_map_of_a_layer_grows_to_the_image():
  found = gradients.upsampled(jnp.array([[[0.0, 1.0]]]), (1, 4))
  np.testing.assert_allclose(found, [[[0, 0.25, 0.75, 1]]], atol=1e-6)


def guided_by_hand():
  """Gradients by the pixels of which no negative one passes the ReLU."""
  maps, slope = by_hand()
  passed = jnp.asarray(np.where(maps > 0, np.maximum(slope, 0), 0), jnp.float32)
  convolve = lambda x: jax.lax.conv_general_dilated(
    x, STATE['params']['conv'], (1, 1), 'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )  # fmt: skip
  return jax.vjp(convolve, IMAGE)[1](passed)[0]


def test_guided_gradients(model):
  found = functools.partial(model.image_gradient, guided=True)
  close(jax.jit(found)(STATE, IMAGE, CHOSEN), np.asarray(guided_by_hand()))
  layer = model.layer('conv')
  explain = functools.partial(gradients.guided_grad_cam, model, layer)
  found = jax.jit(explain)(STATE, IMAGE, CHOSEN)
  cam = gradients.grad_cam(model, layer, STATE, IMAGE, CHOSEN)
  close(found, np.asarray(cam) * np.abs(guided_by_hand()).max(-1))


@pytest.mark.parametrize('form', ['relu', 'maximum'])
def test_every_form_of_a_relu_is_guided(form):
  relu = jax.nn.relu if form == 'relu' else lambda x: jnp.maximum(x, 0)

  def call(state, inputs):
    score = -relu(inputs['image'][:, :3, 0, 0])
    return {'probabilities': jax.nn.softmax(score)}

  model = nets.model(
    Function(call, {'image': nets.IMAGE}, {'probabilities': nets.ODDS})
  )
  args = {'params': ()}, IMAGE, CHOSEN
  assert float(jnp.abs(model.image_gradient(*args)).sum()) == 3  # One pixel an image.
  assert float(jnp.abs(model.image_gradient(*args, guided=True)).sum()) == 0


def test_guided_gradients_need_a_relu():
  def call(state, inputs):
    return {'probabilities': jax.nn.softmax(inputs['image'][:, :3, 0, 0])}

  model = nets.model(
    Function(call, {'image': nets.IMAGE}, {'probabilities': nets.ODDS})
  )
  with pytest.raises(ConfigError, match='no ReLU that they could pass'):
    model.image_gradient({'params': ()}, IMAGE, CHOSEN, guided=True)


def test_saliency_and_smooth_grad(model):
  logits = lambda x: nets.logits_of(STATE['params'], nets.maps_of(STATE['params'], x))
  score = lambda x: logits(x)[jnp.arange(3), CHOSEN].sum()
  wanted = np.abs(np.asarray(jax.jit(jax.grad(score))(IMAGE))).max(-1)
  args = STATE, IMAGE, CHOSEN
  close(jax.jit(functools.partial(gradients.saliency, model))(*args), wanted)
  smooth = jax.jit(
    functools.partial(gradients.smooth_grad, model, samples=3), static_argnames='noise'
  )
  # Without noise all copies are the image.
  close(smooth(*args, jax.random.key(0), noise=0.0), wanted)
  first, second = (
    np.asarray(smooth(*args, jax.random.key(i), noise=0.1)) for i in (0, 1)
  )
  assert np.abs(first - second).max() > 1e-3 * wanted.max()


def test_integrated_gradients_are_complete(model):
  explain = functools.partial(gradients.integrated_gradients, model)
  found = jax.jit(explain)(STATE, IMAGE, CHOSEN)
  total, gain = gradients.completeness(model, STATE, IMAGE, CHOSEN, found)
  # The rule misses what the kinks of the ReLUs cost: of order 1 / steps^2.
  np.testing.assert_allclose(total, gain, atol=1e-3 * np.abs(gain).max())
  assert np.abs(np.asarray(gain)).min() > 0.05


def test_integrated_gradients_by_hand():
  """Of the score x^2 of one pixel it is the whole x^2 - b^2, of x itself x - b."""

  def call(state, inputs):
    x = inputs['image']
    score = jnp.stack([x[:, 0, 0, 0] ** 2, x[:, 1, 1, 1], x[:, 2, 2, 0]], 1)
    return {'probabilities': jax.nn.softmax(score)}

  model = nets.model(
    Function(call, {'image': nets.IMAGE}, {'probabilities': nets.ODDS})
  )
  found = gradients.integrated_gradients(
    model, {'params': ()}, IMAGE[:2], jnp.array([0, 1]), baseline=0.5, steps=4
  )
  wanted = np.zeros((2, nets.SIZE, nets.SIZE))
  wanted[0, 0, 0] = IMAGE[0, 0, 0, 0] ** 2 - 0.25
  wanted[1, 1, 1] = IMAGE[1, 1, 1, 1] - 0.5
  np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_windows_cover_the_axis():
  assert windows(6, 2, 2) == [0, 2, 4]
  assert windows(7, 3, 2) == [0, 2, 4]
  assert windows(8, 3, 2) == [0, 2, 4, 5]
  assert windows(3, 3, 1) == [0]


def test_occlusion_by_hand():
  """Of a score that reads one pixel: what the windows over it cost, and no other."""

  def call(state, inputs):
    x = inputs['image'][:, 2, 3, 0]
    return {'probabilities': jnp.stack([x, 1 - x, 0 * x], 1)}

  model = nets.model(
    Function(call, {'image': nets.IMAGE}, {'probabilities': nets.ODDS})
  )
  found = occlusion(
    model, {'params': ()}, IMAGE, jnp.zeros(3, jnp.int32), side=2, stride=2
  )
  lost = IMAGE[:, 2, 3, 0] - IMAGE.mean((1, 2))[:, 0]
  wanted = np.zeros((3, nets.SIZE, nets.SIZE))
  wanted[:, 2:4, 2:4] = np.asarray(lost)[:, None, None]
  np.testing.assert_allclose(found, wanted, atol=1e-6)
