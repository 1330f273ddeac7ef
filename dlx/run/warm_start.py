"""What a run takes from another run, once, before its step 0.

An experiment's `warm_start` is (state) -> (state, origin); `origin` says what was read
and stands in config.json, so that the other run may be deleted afterwards.

restore          leaves of a checkpoint under one prefix of the TrainState
restore_model    the variables of a Flax module, as that run's evaluation saw them
restore_encoder  the encoder of a run that learns features
"""

from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx.config import Group
from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.run.checkpoint import files
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.records.config_file import read_run
from dlx.run.records.json_files import read_json
from dlx.run.records.workdir import absolute
from dlx.state import PyTree, leaves_by_path


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
  averaged = config.get('ema_decay') is not None
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
  record, path = read_run(absolute(workdir)), absolute(workdir)
  named = {
    f'state/{prefix}/{name}' if name else f'state/{prefix}': leaf
    for prefix, tree in trees.items()
    for name, leaf in leaves_by_path(tree).items()
  }
  checkpoints = Checkpointer(path / 'checkpoints', read_only=True)
  try:

    def newest() -> int:
      if not (steps := checkpoints.steps()):
        raise ConfigError(f'{path} holds no checkpoint: train there first.')
      return steps[-1] if step is None else step

    read = lambda step: (step, *checkpoints.read_leaves(step, named))
    step, leaves, digest = files.follow(checkpoints.folder, newest, read)
  finally:
    checkpoints.close()
  # In the order of the trees, each filled with its own leaves.
  values = iter([leaves[name] for name in named])
  found = {
    prefix: jax.tree.map(lambda _: jnp.asarray(next(values)), tree)
    for prefix, tree in trees.items()
  }
  result = path / 'result.json'
  ended = read_json(result) if result.exists() else {}
  same = ended.get('step') == step
  return pick(found), {
    'path': str(path),
    'experiment': record.get('experiment'),
    'step': step,
    'prefix': ', '.join(trees),
    'digest': digest,
    'fingerprint': ended.get('fingerprint') if same else None,
  }


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
