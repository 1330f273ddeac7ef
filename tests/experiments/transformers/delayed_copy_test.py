"""Sequences of `delayed_copy`, and which answers count; the study's claims."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import numpy as np

from dlx.errors import ConfigError
from experiments.transformers import delayed_copy as lib
from experiments.transformers import positions


class DelayedCopyTest(parameterized.TestCase):
  def test_the_target_is_what_stood_so_many_steps_before(self):
    row = lib.draw(jax.random.key(0), 9, 4, 16)
    symbols = np.asarray(row['symbols'])
    np.testing.assert_array_equal(row['target'], [symbols[t - 4] for t in range(4, 9)])

  @parameterized.parameters(
    ({'delay': 6}, 'config.length=6 is not allowed: must be above 6'),
    ({'also': (6,)}, 'config.also=.* must be numbers, each above 6'),
    ({'also': (9, 9)}, 'config.also=.* must be lengths that differ'),
    ({'positions': 'sine'}, 'config.positions=sine .* one of learned, sinusoidal'),
    ({'window': 0}, 'config.window=0 is not allowed: must be at least 1'),
    ({'width': 6}, 'config.width=6 .* a multiple of 2 x 2 heads'),
  )
  def test_refuses(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      dataclasses.replace(lib.SMALL, **fields)

  @parameterized.parameters(
    ({'schemes': ('sine',)}, 'config.schemes=.* one or more of learned, sinusoidal'),
    ({'schemes': ()}, 'config.schemes=.* one or more of'),
    ({'schemes': ('none', 'none')}, 'config.schemes=.* each once'),
  )
  def test_the_study_refuses(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      dataclasses.replace(positions.SMALL, **fields)


if __name__ == '__main__':
  absltest.main()
