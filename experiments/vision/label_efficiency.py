"""How many labels does pretraining save? 1, 5, 10 and 100 % of them, four ways.

  python -m launch.train --exp=label_efficiency
  python -m launch.train --exp=label_efficiency --config.dataset=cifar10 \
      --config.shares=0.01,0.05,0.1 --config.strategies=scratch,full \
      --config.features=16,32,64 --config.source_steps=1500 \
      --config.target_steps=400 --data_dir=DATA

`transfer` learns the second half of the classes from a share of their labels: from
scratch, or with a trunk that a source task has trained, which is frozen (`features`),
learns in its last layers (`last`) or as a whole (`full`). All have as many steps on the
target; images and weights are drawn anew for each seed. A source is `half`, the other
classes; a number, that many of them; or the name of another set, such as
fashion_mnist, whose images are brought to the same shape. Each run pretrains by itself,
or all take the trunk of `source_workdir`, a run of `cnn` or `resnet`; the spread is
then without that of sources. Expected: what is transferred wins where labels are few,
and the less the more there are.

Measured: CIFAR-10, 1 and 10 %: full 74.9, 84.1 %, scratch 65.9, 78.6; digits: no gain.
"""

import dataclasses
import functools

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds
from dlx.study.statistics import mean_interval, welch_interval

ACCURACY, SCRATCH = 'test/accuracy', 'scratch'
STRATEGIES = (SCRATCH, 'features', 'last', 'full')
HALF = 'half'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'digits'  # digits, mnist, cifar10, or a folder's name: the target.
  # Source tasks: half, a number of the classes before, or another set's name.
  sources: tuple[str, ...] = (HALF,)
  # Workdir of a run of cnn or resnet whose trunk is transferred; None: each pretrains.
  source_workdir: str | None = None
  # Shares of the target's labels, rising.
  shares: tuple[float, ...] = (0.01, 0.05, 0.1, 1.0)
  strategies: tuple[str, ...] = STRATEGIES  # scratch, features, last and full, or some.
  source_steps: int = 300  # Optimiser steps on the source, where a run pretrains.
  target_steps: int = 150  # Optimiser steps on the target.
  net: str = 'cnn'  # cnn or resnet.
  features: tuple[int, ...] = (16, 32)  # Channels of the blocks of a CNN.
  depth: int = 8  # Layers of a ResNet, 6 n + 2.
  width: int = 16  # Channels of the first stage of a ResNet.
  lr: float = 1e-3  # Largest learning rate of the target task.
  few: float = 0.1  # Largest share of which is claimed that pretraining helps.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('source_steps', 'target_steps', least=1)
    self.bounds('shares', above=0, most=1, some=True)
    self.require('shares', self.shares == tuple(sorted(set(self.shares))), 'rising')
    known = set(self.strategies) <= set(STRATEGIES)
    both = SCRATCH in self.strategies and len(set(self.strategies)) > 1
    self.require(
      'strategies', known and both, f'scratch and some of {", ".join(STRATEGIES[1:])}'
    )
    self.require('sources', bool(self.sources), 'one or more')
    self.require(
      'sources',
      self.source_workdir is None or len(self.sources) == 1,
      'one with a source_workdir',
    )


# The least study that still has every part.
SMALL = Config(
  seeds=2,
  shares=(0.1,),
  strategies=(SCRATCH, 'full'),
  source_steps=2,
  target_steps=2,
  features=(4,),
)


def study(config: Config) -> Study:
  def source_of(name):
    fields = {'num_steps': config.source_steps, 'workdir': config.source_workdir}
    if name.isdecimal():
      return {**fields, 'classes': int(name)}
    return fields if name == HALF else {**fields, 'dataset': name}

  def run(source, strategy, share):
    # A source that another run has trained takes none of the steps.
    own = strategy != SCRATCH and config.source_workdir is None
    return {
      'dataset': config.dataset,
      'source': source_of(source),
      'strategy': strategy,
      'share': share,
      'num_steps': config.target_steps + own * config.source_steps,
      'net': config.net,
      'features': config.features,
      'depth': config.depth,
      'width': config.width,
      'lr': config.lr,
      'log_every_steps': config.target_steps,
      'eval_every_steps': None,
      'save_every_steps': None,
    }

  shares = {share: f'{100 * share:g}' for share in config.shares}  # In per cent.
  # Of half and of a number the target is the other half, of another set all classes.
  target_of = lambda source: HALF if source.isdecimal() else source
  name = lambda source, strategy, share: (
    f'{strategy}-{target_of(source) if strategy == SCRATCH else source}-{shares[share]}'
  )
  settings = {
    name(source, strategy, share): Run('transfer', run(source, strategy, share))
    for source in config.sources
    for strategy in config.strategies
    for share in config.shares
  }
  runs = {  # The images are chosen anew, too: else all seeds would share their luck.
    name: run._replace(fields={**run.fields, 'subset_seed': run.fields['seed']})
    for name, run in over_seeds(config, settings).items()
  }
  transferred = [x for x in config.strategies if x != SCRATCH]
  claimed = 'full' if 'full' in transferred else transferred[-1]

  def above(source, share):
    """Whether the intervals of the two means are apart, the right way round."""
    pretrained, scratch = (name(source, x, share) for x in (claimed, SCRATCH))

    def claim(results):
      found = [results.values(ACCURACY, x) for x in (pretrained, scratch)]
      told = '; '.join(results.told(ACCURACY, x) for x in (pretrained, scratch))
      if min(map(len, found)) < 2:
        return Verdict(False, f'{told}; needed are two runs of each.')
      high, low = (mean_interval(values) for values in found)
      said = ', '.join(f'{x.low:.4f} to {x.high:.4f}' for x in (high, low))
      return Verdict(high.low > low.high, f'{told}; 95 % intervals {said}.')

    return claim

  def more_with_few(source):
    """Whether the gain is larger with the least share than with the largest."""

    def gain(results, share):
      names = (name(source, x, share) for x in (claimed, SCRATCH))
      a, b = results.pairs(ACCURACY, *names)
      return a - b

    def claim(results):
      least, most = (gain(results, config.shares[i]) for i in (0, -1))
      if min(len(least), len(most)) < 2:
        return Verdict(False, f'{len(least)} and {len(most)} pairs; needed are two.')
      found = welch_interval(least, most)
      return Verdict(
        found.low > 0,
        f'{least.mean():.4f} with the least share, {most.mean():.4f} with the largest; '
        f'difference {found.difference:.4f}, 95 % from {found.low:.4f} to '
        f'{found.high:.4f}.',
      )

    return claim

  def rows(results):
    """A row a group, with the interval of its mean and how far it is from scratch."""
    found = []
    for group in results.groups:
      strategy, rest = group.split('-', 1)
      source, _, percent = rest.rpartition('-')
      row = {'strategy': strategy, 'source': source, 'labels (%)': percent}
      row |= results.row(group, (ACCURACY,))
      values = results.values(ACCURACY, group)
      if len(values) > 1:
        own = mean_interval(values)
        row['95 % interval'] = f'{own.low:.4f} to {own.high:.4f}'
      scratch = f'{SCRATCH}-{target_of(source)}-{percent}'
      apart = results.interval(ACCURACY, group, scratch)
      if group != scratch and apart is not None:
        row['above scratch'] = (
          f'{apart.difference:.4f} ({apart.low:.4f} to {apart.high:.4f})'
        )
      found.append(row)
    return found

  def figure(results, source):
    return studies.over_values(
      [100 * share for share in config.shares],
      {
        strategy: [
          100 * results.values(ACCURACY, name(source, strategy, share))
          for share in config.shares
        ]
        for strategy in config.strategies
      },
      xlabel='Labels of the target task (%)',
      ylabel='Test accuracy (%)',
      title=f'Source {source}, target {config.dataset}, {config.seeds} seeds',
      log_x=True,
    )

  claims = {
    f'With {shares[share]} % of the labels {claimed} from {source} is above scratch.': (
      above(source, share)
    )
    for source in config.sources
    for share in config.shares
    if share <= config.few
  }
  if len(config.shares) > 1:
    claims |= {
      f'From {source} {claimed} gains more where labels are fewest.': (
        more_with_few(source)
      )
      for source in config.sources
    }
  return Study(
    runs=runs,
    metrics=(ACCURACY, 'test/loss'),
    claims=claims,
    figures={
      f'accuracy_{source}': functools.partial(figure, source=source)
      for source in config.sources
    },
    rows=rows,
  )
