"""Does it know an image that has moved? A perceptron against convolutional nets.

  python -m launch.train --exp=cnn_vs_mlp_shift

`shifted` trains each net on images in the middle of a canvas and tests it on images
moved by 1, 2, 3 and 4 pixels. A convolution moves its outputs as its input moves
(LeCun et al. 1998); dense layers behind it know places again, a mean over positions
does not. Expected: the perceptron falls first, `cnn` next, `modern_cnn` hardly at all.

Measured: shifted by 2 pixels 10.9 % (`mlp`), 42.1 % (`cnn`), 87.4 % (`modern_cnn`).
A mean forgets places by whole pool windows alone: by 1 and 3 pixels, half a window of
its 2x2 pool, `modern_cnn` falls to 61.4 and 59.3 %.
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, over_seeds

MLP, CNN, MODERN = 'mlp', 'cnn', 'modern_cnn'
NETS = (MLP, CNN, MODERN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 300  # Optimiser steps of each run.
  shifts: tuple[int, ...] = (1, 2, 3, 4)  # Pixels by which test images move, rising.
  features: tuple[int, ...] = (16, 32)  # Channels of the blocks of convolutional nets.
  dense: int = 128  # Units of hidden layers: two of the perceptron, one of cnn.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'dense', least=1)
    self.bounds('features', least=1, some=True)
    self.bounds('shifts', least=1, some=True)
    self.require(
      'shifts', self.shifts == tuple(sorted(set(self.shifts))), 'rising whole numbers'
    )


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, shifts=(1,), features=(4,), dense=8)


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'margin': config.shifts[-1],
    'shifts': config.shifts,
    'features': config.features,
    'dense': config.dense,
    'log_every_steps': max(1, config.num_steps // 4),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  accuracy = {0: 'test/accuracy'} | {n: f'shift_{n}/accuracy' for n in config.shifts}
  first, last = config.shifts[0], config.shifts[-1]

  def figure(results):
    return studies.over_values(
      list(accuracy),
      {
        net: [100 * results.values(metric, net) for metric in accuracy.values()]
        for net in NETS
      },
      xlabel='Shift of the test images (pixels)',
      ylabel='Test accuracy (%)',
      title=f'Trained on images that are not shifted, {config.seeds} seeds',
    )

  def beats(net, than, pixels):
    return lambda results: results.higher(accuracy[pixels], net, than=than)

  return Study(
    runs=over_seeds(
      config, {net: Run('shifted', {**fields, 'net': net}) for net in NETS}
    ),
    metrics=tuple(accuracy.values()),
    claims={
      f'At a shift of {first} the CNN is better than the perceptron.': (
        beats(CNN, MLP, first)
      ),
      f'At a shift of {last} a mean over positions is better than the perceptron.': (
        beats(MODERN, MLP, last)
      ),
      f'At a shift of {last} a mean over positions is better than dense layers.': (
        beats(MODERN, CNN, last)
      ),
    },
    figures={'accuracy_by_shift': figure},
  )
