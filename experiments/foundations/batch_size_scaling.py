"""Larger batches, larger rates? The linear rule with and without warm-up.

  python -m launch.train --exp=batch_size_scaling

k times the batch takes k times the learning rate, over equally many examples, and a
warm-up carries the first steps, whose large rate does harm (arXiv:1706.02677). Here the
perceptron of `gradient_descent`, with momentum 0.9 and a cosine to 0, on batches of 16
to 1024. Expected: at one rate for all, large batches fall behind, as they take fewer
steps; the linear rule keeps up until its rate is too large, and further with warm-up.

Measured: batches of 1024, 96.06 % by the rule, 68.17 % at one rate (5 seeds).
Warm-up did not help: 95.17 %. No run diverged without it, and it takes a fifth of 42
steps away.
"""

import dataclasses

from dlx.data.sets import images
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

ACCURACY = 'test/accuracy'
FIXED, LINEAR, WARM = 'fixed', 'linear', 'warm-up'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  seeds: int = 5  # Runs of each setting, which differ in their seed alone.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  epochs: int = 30  # How often every run sees each training example.
  # Examples of a batch, rising.
  batch_sizes: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
  lr: float = 0.01  # Largest learning rate of the smallest batch.
  momentum: float = 0.9  # Share of the last update that is added to the next.
  warmup: float = 0.2  # Share of the steps over which the rate rises, with warm-up.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('epochs', least=1)
    self.bounds('batch_sizes', least=1)
    sizes = self.batch_sizes
    self.require(
      'batch_sizes',
      sizes == tuple(sorted(set(sizes))) and len(sizes) > 2,
      'three or more whole numbers, rising',
    )
    self.bounds('lr', above=0)
    self.bounds('momentum', least=0, below=1)
    self.bounds('warmup', above=0, below=1)


# The least study that still has every part.
SMALL = Config(seeds=2, epochs=1, batch_sizes=(256, 512, 1024))


def study(config: Config) -> Study:
  n = images.images(config.dataset).train.size or 0
  config.require('dataset', n > 0, 'a set whose size is known')
  first, *_, last = config.batch_sizes
  middle = config.batch_sizes[len(config.batch_sizes) // 2]
  names = {
    rule: [f'{rule},batch={size}' for size in config.batch_sizes]
    for rule in (FIXED, LINEAR, WARM)
  }
  named = lambda rule, size: names[rule][config.batch_sizes.index(size)]
  settings = {}
  for size in config.batch_sizes:
    num_steps = -(-config.epochs * n // size)
    fields = {
      'dataset': config.dataset,
      'batch_size': size,
      'num_steps': num_steps,
      'momentum': config.momentum,
      'final_rate': 0.0,
      'log_every_steps': max(1, num_steps // 6),
    }
    scaled = {'lr': config.lr * size / first}
    for rule, own in (
      (FIXED, {'lr': config.lr}),
      (LINEAR, scaled),
      (WARM, {**scaled, 'warmup': config.warmup}),
    ):
      settings[named(rule, size)] = Run('gradient_descent', {**fields, **own})

  def kept(results):
    small, large = named(LINEAR, first), named(LINEAR, middle)
    lost = results.mean(ACCURACY, small) - results.mean(ACCURACY, large)
    told = ', '.join(results.told(ACCURACY, name) for name in (small, large))
    return Verdict(lost <= 0.01, f'{ACCURACY} of {told}; lost {100 * lost:.2f} points.')

  def figure(results):
    return studies.over_values(
      config.batch_sizes,
      {
        label: [100 * (1 - results.values(ACCURACY, name)) for name in names[rule]]
        for rule, label in (
          (FIXED, 'one rate'),
          (LINEAR, 'linear rule'),
          (WARM, 'linear rule, warm-up'),
        )
      },
      xlabel='Examples of a batch',
      ylabel='Test error (%)',
      title=f'{config.epochs} passes, rate {config.lr:g} at {first}, '
      f'{config.seeds} seeds',
      log_x=True,
      log_y=True,
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, 'test/loss', 'whole/loss'),
    claims={
      'At one rate the largest batch has a lower test accuracy than the smallest.': (
        lambda r: r.lower(ACCURACY, named(FIXED, last), than=named(FIXED, first))
      ),
      f'By the linear rule {middle / first:g} times the batch loses at most a point.': (
        kept
      ),
      'At the largest batch the linear rule is better with warm-up than without.': (
        lambda r: r.higher(ACCURACY, named(WARM, last), than=named(LINEAR, last))
      ),
    },
    figures={'error_by_batch_size': figure},
  )
