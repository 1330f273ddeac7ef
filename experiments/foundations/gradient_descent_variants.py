"""One example, a mini-batch, or all at once? Gradient descent over equal examples.

  python -m launch.train --exp=gradient_descent_variants

`gradient_descent` takes steps of one example, of 32, and of the whole training set, as
many as see every example 30 times, each at rates a constant factor apart. Compared is
the loss on the training set, at the rate that is best for each. Expected: the noise of
a gradient falls as 1 / B, so that a larger batch takes a larger rate; but not so much
larger that its fewer steps lead as far (arXiv:1206.5533, section 3.1.1).

Measured: 0.00059 nats one by one, 0.00423 in mini-batches, 0.131 all at once.
"""

import dataclasses

import numpy as np

from dlx.data.sets import images
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

LOSS = 'whole/loss'
SIZES = (1, 4, 16, 64, 256)  # Of batches whose noise is reported.
STOCHASTIC, MINI, BATCH = 'stochastic', 'mini-batch', 'batch'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  epochs: int = 30  # How often every run sees each training example.
  mini_batch: int = 32  # Examples of a mini-batch.
  num_rates: int = 7  # Rates, a constant factor apart.
  lowest: float = 3e-3  # The first of them.
  highest: float = 3.0  # The last of them.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('epochs', least=1)
    self.bounds('mini_batch', 'num_rates', least=2)
    self.bounds('lowest', above=0)
    self.require('highest', self.highest > self.lowest, f'above lowest={self.lowest}')


# The least study that still has every part.
SMALL = Config(seeds=2, epochs=1, mini_batch=256, num_rates=2)


def study(config: Config) -> Study:
  n, least = images.images(config.dataset).train.size or 0, 2 * SIZES[-1]
  config.require('dataset', n >= least, f'a set of known size, {least} at least')
  config.require('mini_batch', config.mini_batch < n, f'below {n}, all examples')
  batch_size = {STOCHASTIC: 1, MINI: config.mini_batch, BATCH: n}
  rates = np.geomspace(config.lowest, config.highest, config.num_rates).tolist()
  names = {kind: [f'{kind},lr={rate:.3g}' for rate in rates] for kind in batch_size}
  settings = {}
  for kind, size in batch_size.items():
    num_steps = -(-config.epochs * n // size)
    fields = {
      'dataset': config.dataset,
      'batch_size': size,
      'num_steps': num_steps,
      'log_every_steps': max(1, num_steps // 6),
    }
    for name, lr in zip(names[kind], rates, strict=True):
      settings[name] = Run('gradient_descent', {**fields, 'lr': lr})

  def best(results, kind):
    """The rate of the lowest loss."""
    return results.best(LOSS, names[kind])

  def below_batch(kind):
    return lambda results: results.lower(
      LOSS, best(results, kind), than=best(results, BATCH)
    )

  def larger_rates(results):
    found = {kind: best(results, kind) for kind in names}
    order = [names[kind].index(found[kind]) for kind in (STOCHASTIC, MINI, BATCH)]
    told = ', '.join(results.told(LOSS, name) for name in found.values())
    return Verdict(order[0] < order[1] < order[2], f'Lowest mean of {LOSS}: {told}.')

  def noise(results, kind):
    """[size][run] at the best rate."""
    name = best(results, kind)
    return [results.values(f'whole/noise_{size}', name) for size in SIZES]

  def one_over_size(results):
    slopes = {
      kind: float(
        np.polyfit(np.log(SIZES), [np.log(x).mean() for x in noise(results, kind)], 1)[
          0
        ]
      )
      for kind in names
    }
    told = ', '.join(f'{kind} {slope:.3f}' for kind, slope in slopes.items())
    return Verdict(
      all(abs(slope + 1) <= 0.1 for slope in slopes.values()),
      f'Slope of log noise over log size, asked -1 to 0.1, at the weights of {told}.',
    )

  def loss_figure(results):
    return studies.over_values(
      rates,
      {
        f'{kind}, {size}': [results.values(LOSS, name) for name in names[kind]]
        for kind, size in batch_size.items()
      },
      xlabel='Learning rate',
      ylabel='Loss on the training set (nats)',
      title=f'{config.epochs} passes over {n} examples, {config.seeds} seeds',
      log_x=True,
      log_y=True,
    )

  def noise_figure(results):
    return studies.over_values(
      SIZES,
      {f'after {kind}': noise(results, kind) for kind in names},
      xlabel='Examples of a batch',
      ylabel='Squared distance of the gradient to its mean',
      title='Noise of the gradient of a step',
      log_x=True,
      log_y=True,
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, 'test/accuracy', 'whole/noise_1', 'whole/noise_64'),
    claims={
      'The noise of a gradient falls as 1 over the size of the batch.': one_over_size,
      'The larger the batch, the larger the best rate.': larger_rates,
      'Mini-batches reach a lower training loss than whole batches.': below_batch(MINI),
      'So do single examples.': below_batch(STOCHASTIC),
    },
    figures={'loss_by_rate': loss_figure, 'noise_by_size': noise_figure},
  )
