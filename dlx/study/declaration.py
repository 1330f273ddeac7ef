"""What a study is: a file in experiments/ with `study(config)` in place of `build`.

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  rates: tuple[float, ...] = (0.0, 0.5)  # Shares of hidden units dropped.

def study(config):
  settings = {f'{p}': Run('mlp', {'dropout': p}) for p in config.rates}
  lower = lambda results: results.lower('test/loss', '0.5', than='0.0')
  return Study(
    runs=over_seeds(config, settings),
    metrics=('test/loss',),
    claims={'Dropout lowers the test loss.': lower},
  )
"""

from typing import Any, Callable, Mapping, NamedTuple, Sequence

from dlx.config import StudyConfig

__all__ = ('Run', 'Study', 'StudyConfig', 'Verdict', 'over_seeds')


class Run(NamedTuple):
  """One run of a study.

  Attributes:
    exp: name of an experiment, or the path of a fork.
    fields: of its Config that are not at their default; of a group a mapping.
    group: runs of one group are repetitions, a row of the table; '': the name of the
      run.
  """

  exp: str
  fields: Mapping[str, Any] = {}
  group: str = ''


class Verdict(NamedTuple):
  """Whether a claim holds, and the numbers that say so, as one sentence."""

  holds: bool
  numbers: str


class Study(NamedTuple):
  """Runs, and what is made of their results, a `dlx.study.results.Results`.

  Attributes:
    runs: by name, which is that of a folder.
    metrics: "split/name" of the columns of the table, the most important first.
    claims: by sentence: pure, results -> whether it holds.
    figures: by name: pure, results -> matplotlib Figure.
    rows: pure, results -> rows of the table by column; None: one a group, with the
      number of runs, and mean and standard deviation of each metric.
  """

  runs: Mapping[str, Run]
  metrics: tuple[str, ...]
  claims: Mapping[str, Callable[[Any], Verdict]] = {}
  figures: Mapping[str, Callable[[Any], Any]] = {}
  rows: Callable[[Any], Sequence[Mapping[str, Any]]] | None = None


def over_seeds(config: StudyConfig, settings: Mapping[str, Run]) -> dict[str, Run]:
  """`config.seeds` runs of each setting, NAME-SEED, of the group NAME."""
  last = config.first_seed + config.seeds
  return {
    f'{name}-{seed}': Run(run.exp, {**run.fields, 'seed': seed}, run.group or name)
    for name, run in settings.items()
    for seed in range(config.first_seed, last)
  }
