"""How much dropout? The rate swept on a wide perceptron with few examples.

  python -m launch.train --exp=dropout_rate

Hidden units are dropped with each rate, pixels never (arXiv:1207.0580, section 7.3,
figure 9a). Most training examples are held out, so that the net overfits. Expected:
the test loss is lowest at a rate in the middle, and rises where most units are dropped.

Measured: test loss 0.166 nats (sd 0.015, 3 seeds) at 0.8, 0.234 without dropout.
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds

LOSS = 'test/loss'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  num_steps: int = 600  # Optimiser steps of each run.
  held_out: float = 0.8  # Share of the training examples that are not trained on.
  rates: tuple[float, ...] = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 0.95)  # Shares dropped.
  width: int = 512  # Units of each of the two hidden layers.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'width', least=1)
    self.bounds('held_out', least=0, below=1)
    self.bounds('rates', least=0, below=1)
    rising = self.rates == tuple(sorted(set(self.rates)))
    self.require(
      'rates',
      rising and len(self.rates) > 2 and self.rates[:1] == (0.0,),
      'three or more numbers, rising from 0',
    )


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, rates=(0.0, 0.5, 0.9), width=16)


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'validation': config.held_out,
    'features': (config.width, config.width),
    'input_dropout': 0.0,
    'batch_norm': False,
    'log_every_steps': max(1, config.num_steps // 6),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  names = [f'dropout={rate:g}' for rate in config.rates]
  settings = {
    name: Run('mlp', {**fields, 'dropout': rate})
    for name, rate in zip(names, config.rates, strict=True)
  }

  def best(results):
    """The rate of the lowest loss on the examples that were held out."""
    return results.best('validation/loss', names)

  def middle(results):
    found = best(results)
    told = results.told('validation/loss', found)
    return Verdict(
      found not in (names[0], names[-1]),
      f'Of {len(names)} rates the lowest mean of validation/loss has {told}.',
    )

  def figure(results):
    line = lambda metric: [results.values(metric, name) for name in names]
    return studies.over_values(
      config.rates,
      {'train, with dropout': line('train/loss'), 'test': line(LOSS)},
      xlabel='Share of hidden units dropped',
      ylabel='Loss (nats)',
      title=f'Two layers of {config.width} units, {config.seeds} seeds',
      log_y=True,
    )

  claims = {
    'The best rate lies between none and the highest.': middle,
    'The rate that is best on held-out examples has a lower test loss than none.': (
      lambda r: r.lower(LOSS, best(r), than=names[0])
    ),
    'The highest rate has a higher test loss than that one.': (
      lambda r: r.higher(LOSS, names[-1], than=best(r))
    ),
  }
  return Study(
    runs=over_seeds(config, settings),
    metrics=(LOSS, 'test/accuracy', 'validation/loss', 'train/loss'),
    claims=claims,
    figures={'loss_by_rate': figure},
  )
