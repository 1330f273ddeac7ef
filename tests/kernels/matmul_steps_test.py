"""Runs whose products are XLA's and oneDNN's: equal to rounding for 20 steps."""

import jax
import numpy as np
import pytest

from dlx.run import sharding
from dlx.run.dispatch import make_dispatch
from dlx.state import is_key, leaves_by_path, zeros_like
from kernels import dispatch
from tests import turns
from tests.every_experiment.small import load, small
from tests.every_experiment.tiers import KINDS

pytestmark = pytest.mark.usefixtures('onednn')
STEPS = 20
# Rows of cases that there are not, and of all.
NEVER = dispatch.Row({'dtype': 'none'}, 'onednn', {}, {})
ALWAYS = dispatch.Row({}, 'onednn', {}, {})
# Of the fast tier: dense layers, a transformer.
FAST = ('mlp', 'char_gpt')


def trained(name: str) -> tuple[dict, str]:
  """Floats of state and metric sums by path, and the text of the program."""
  config = small(name, num_steps=STEPS, eval_every_steps=None)
  built = load(name).build(config)
  data = built.train_data
  if not hasattr(data, 'array_shapes'):
    pytest.skip('streamed data')
  dispatch = make_dispatch(built, sharding.make_mesh())
  state = dispatch.init(jax.random.key(0))
  window = jax.device_put(zeros_like(dispatch.window), dispatch.arrays)
  arrays = jax.device_put(data.load().data, dispatch.arrays)
  text = dispatch.run[0].lower(state, window, arrays, np.int32(1)).as_text()
  for step in range(STEPS):
    run = dispatch.run[data.shape_id(step)]
    state, window, _ = run(state, window, arrays, np.int32(1))
  found = leaves_by_path({'params': state.params, 'metrics': window})
  return {k: np.array(x) for k, x in found.items() if not is_key(x)}, text


def check(name: str) -> None:
  with dispatch.trial(NEVER):
    xla, text = trained(name)
  assert 'dlx_onednn_product' not in text
  jax.clear_caches()
  with dispatch.trial(ALWAYS):
    onednn, text = trained(name)
  jax.clear_caches()
  assert 'dlx_onednn_product' in text
  for path, there in xla.items():
    here = onednn[path]
    if np.issubdtype(there.dtype, np.floating):
      # Adam divides gradients by their size: where one is rounding alone, its step is
      # of any sign. Such entries are few, and move by 20 learning rates at most.
      scale = max(np.abs(there).max(initial=0), 1e-2)
      far = np.abs(here - there) / scale
      assert np.sqrt((far**2).mean()) < 1e-2, (path, far.max())


@pytest.mark.parametrize('name', FAST)
def test_twenty_steps_are_equal_to_rounding(name):
  check(name)


@turns.seldom(5)
@pytest.mark.parametrize('name', sorted(set(KINDS.values()) - set(FAST)))
def test_those_of_each_kind(name):
  check(name)
