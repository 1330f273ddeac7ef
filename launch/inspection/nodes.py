"""Wrong nodes of a graph, with what they are joined to: --what=nodes."""

from typing import Any

from etils import epath

from dlx.errors import ConfigError
from dlx.run.reopen import draw

FIGURE, FILE = 'wrong_nodes', 'nodes.txt'  # What classifiers of nodes report it by.
UNREAD = ('layer', 'function', 'target', 'channels', 'dataset', 'sanity', 'resize')


def check(values: Any, words: list[str]):
  """Raises ConfigError: a flag or a file that means nothing for nodes."""
  given = [name for name in UNREAD if getattr(values, name) not in (None, False)]
  if given or words:
    fault = f'--{given[0]}' if given else words[0]
    raise ConfigError(f'{fault} is not read by --what=nodes: it is of pictures.')


def show(run: Any, values: Any, out: str) -> str:
  """The test nodes that are classified wrongly, surest first; OUT/nodes.txt has them.

  Args:
    run: as `dlx.open` gives it; its data must be at hand.
    values: of the flags: `num` nodes are listed; None: as many as the figure has.
    out: a folder.

  Raises:
    ConfigError: a run that classifies no nodes.
  """
  if FIGURE not in run.experiment.figures:
    raise ConfigError(
      f'--what=nodes is not allowed: {run.record["experiment"]} must classify the '
      'nodes of a graph, as gcn and gat do.'
    )
  told = draw(
    run.experiment,
    run.config,
    values.workdir,
    FIGURE,
    step=run.step,
    data_dir=values.data_dir,
  )
  lines = told.splitlines(keepends=True)
  first = sum(not line.startswith('node ') for line in lines)
  if values.num is not None:
    told = ''.join(lines[: first + values.num])
  folder = epath.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / FILE).write_text(told)
  return told
