"""What a run takes from another run, once, before its step 0.

An experiment's `warm_start` is (state) -> (state, origin); `origin` says what was read
and stands in config.json, so that the other run may be deleted afterwards.

read             any leaves of a checkpoint, chosen by what is there
restore          leaves of a checkpoint under one prefix of the TrainState
restore_model    the variables of a Flax module, as that run's evaluation saw them
restore_encoder  the encoder of a run that learns features
"""

from typing import Any, Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.config import Group
from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.run.checkpoint import files
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.checkpoint.pick import pick
from dlx.run.records.config_file import read_run
from dlx.run.records.json_files import read_json
from dlx.run.records.workdir import absolute
from dlx.state import PyTree, leaves_by_path


def read(
  workdir: Any,
  step: int | str,
  wanted: Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any]],
  *,
  flag: str = '',
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Some leaves of another run, which may be under way, and the origin.

  Args:
    workdir: of a run that has saved at least once.
    step: 'latest', 'best' (by that run's `best_metric`) or a number.
    wanted: see `Checkpointer.read_leaves`.
    flag: by which a user gave the workdir; stands before it in messages.

  Returns:
    NumPy arrays by name; and the origin, see `restore`, without `prefix`.

  Raises:
    ConfigError: see `restore`.
  """
  path = absolute(workdir)
  record = read_run(path, flag)
  metric, mode = (record['config'].get(f'best_{name}') for name in ('metric', 'mode'))
  checkpoints = Checkpointer(
    path / 'checkpoints',
    read_only=True,
    best_metric=metric if step == 'best' else None,
    best_mode=mode or 'max',
  )
  which = lambda: pick(checkpoints, path, step, metric, flag=f'{flag}{path}:')
  of = lambda step: (step, *checkpoints.read_leaves(step, wanted))
  try:
    step, leaves, digest = files.follow(checkpoints.folder, which, of)
  finally:
    checkpoints.close()
  result = path / 'result.json'
  ended = read_json(result) if result.exists() else {}
  same = ended.get('step') == step
  return leaves, {
    'path': str(path),
    'experiment': record.get('experiment'),
    'step': step,
    'digest': digest,
    'fingerprint': ended.get('fingerprint') if same else None,
  }


def restore(
  workdir: Any, wanted: PyTree, *, prefix: str = 'params', step: int | None = None
) -> tuple[PyTree, dict[str, Any]]:
  """Leaves of another run's checkpoint; nothing is written there.

  Args:
    workdir: of a run that has saved at least once.
    wanted: arrays or ShapeDtypeStructs: the structure that is filled.
    prefix: where in that run's TrainState it lies: 'params', 'ema', 'model_state/...'.
      A part of a tree may be asked for: leaves there that `wanted` lacks are not read.
    step: of the checkpoint; None: the newest.

  Returns:
    Arrays in the structure of `wanted`; and the origin: `path`, `experiment`, `step`,
    `prefix`, `digest` (sha256 over the checksums of that checkpoint) and the
    `fingerprint` of result.json where that run ended at this step.

  Raises:
    ConfigError: no run, no such checkpoint, a corrupt one, or one whose leaves have
      other shapes or dtypes; names the leaf.
  """
  return _restore(workdir, {prefix: wanted}, step, lambda tree: tree[prefix])


def restore_model(
  workdir: Any, variables: Mapping[str, PyTree], *, step: int | None = None
) -> tuple[dict[str, PyTree], dict[str, Any]]:
  """The variables of a module in a run made by `supervised`, as it evaluates them.

  Averaged parameters where that run keeps an average; with or without early stopping.

  Args:
    variables: {'params': ..., 'batch_stats': ...} of the same module.

  Raises:
    ConfigError: see `restore`.
  """
  config = read_run(absolute(workdir)).get('config', {})
  evenly = (config.get('averaging') or {}).get('start') is not None
  averaged = evenly or config.get('ema_decay') is not None
  places = {
    name: ('ema' if averaged else 'params')
    if name == 'params'
    else f'model_state/{name}'
    for name in variables
  }
  trees = {places[name]: tree for name, tree in variables.items()}
  pick = lambda found: {name: found[place] for name, place in places.items()}
  return _restore(workdir, trees, step, pick)


def _restore(workdir, trees: Mapping[str, PyTree], step, pick):
  named = {
    f'state/{prefix}/{name}' if name else f'state/{prefix}': leaf
    for prefix, tree in trees.items()
    for name, leaf in leaves_by_path(tree).items()
  }
  leaves, origin = read(workdir, 'latest' if step is None else step, named)
  # In the order of the trees, each filled with its own leaves.
  values = iter([leaves[name] for name in named])
  found = {
    prefix: jax.tree.map(lambda _: jnp.asarray(next(values)), tree)
    for prefix, tree in trees.items()
  }
  return pick(found), {**origin, 'prefix': ', '.join(trees)}


def restore_encoder(
  workdir: Any,
  weights: PyTree,
  *,
  encoder: Group,
  names: Sequence[str] = ('features', 'strides', 'groups'),
) -> tuple[PyTree, dict[str, Any]]:
  """The encoder of another run, under `params/encoder` there; and its origin.

  Args:
    workdir: of that run.
    weights: the structure that is filled.
    encoder: of this run's config, its group `encoder`.
    names: fields of the group that must be as they are there: weights fit encoders of
      other strides too, and the features would be other ones.

  Raises:
    ConfigError: one of those fields differs; see `restore`.
  """
  found, origin = restore(workdir, weights, prefix='params/encoder')
  there = read_json(absolute(workdir) / 'config.json')['config'].get('encoder', {})
  for name in names:
    value = config_to_json(encoder)[name]
    if name in there and there[name] != value:
      raise ConfigError(
        f'--config.encoder.{name}={value} is not allowed: must be {there[name]}, as of '
        f'the encoder in {origin["path"]}.'
      )
  return found, origin
