"""result.json: what a finished run came to, and where and how."""

from typing import Any, Mapping

import jax

from dlx.run.checkpoint.checksums import fingerprint
from dlx.run.records.environment import environment
from dlx.run.records.json_files import write_json
from dlx.state import TrainState


def write_result(
  folder,
  record: Mapping[str, Any],
  *,
  state: TrainState,
  step: int,
  rows: int,
  metrics: Mapping[str, Any],
  seconds: Mapping[str, float],
  stopped_early: bool,
  origins: Mapping[str, Any],
) -> dict[str, Any]:
  """Writes FOLDER/result.json, the last file of a run, and returns what it holds.

  All processes call it; the first writes.

  Args:
    record: config.json, for the name of the experiment and its config.
    rows: rows of one training batch; `examples_per_second` counts them.
    metrics: by "split/name".
    seconds: by kind and in total, of all sessions.
    origins: what data each split was read from.
  """
  done = {
    'experiment': record['experiment'],
    'dataset': {split: dict(origin) for split, origin in origins.items()},
    'metrics': dict(sorted(metrics.items())),
    'step': step,
    'num_steps': record['config']['num_steps'],
    'stopped_early': stopped_early,
    'seconds': {k: round(v, 3) for k, v in seconds.items()},
    'examples_per_second': round(step * rows / max(seconds['train'], 1e-9), 1),
    **environment(),
    'fingerprint': fingerprint(state),
    'finished': True,
  }
  if jax.process_index() == 0:
    write_json(folder / 'result.json', done)
  return done
