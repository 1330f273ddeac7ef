"""Looks into a trained model: filters, features, maps of evidence, units; wrong nodes.

  python -m launch.inspect --workdir=runs/cnn                       its layers
  python -m launch.inspect --workdir=runs/cnn --what=grad_cam       of the test split
  python -m launch.inspect --workdir=runs/cnn --what=grad_cam a.png b.png --resize
  python -m launch.inspect --workdir=runs/cnn --what=features --layer=conv_1
  python -m launch.inspect --workdir=runs/gat --what=nodes --num=20

Of any experiment with a function of one image, and nodes of a classifier of nodes;
nothing of it is edited. --what is

  filters               weights of the first layer, or of --layer
  features              channels of --layer, 4 rows of 8
  activations           histograms of what every layer gives
  grad_cam              which places make a class likely (arXiv:1610.02391); also
                        grad_cam_pp (1710.11063) and guided_grad_cam
  saliency              absolute gradients by the pixels (1312.6034)
  smooth_grad           the mean of them over noisy copies (1706.03825)
  integrated_gradients  shares of the score that sum to it (1703.01365)
  occlusion             the loss of probability where a square is hidden (1311.2901)
  patches               what makes the channels of --layer largest
  rollout               attention over all blocks of a transformer (2005.00928)
  embedding             features in the plane: principal components, t-SNE
  nodes                 of a graph: test nodes that are wrong, the surest --num of them,
                        with classes, probability and neighbours; into nodes.txt

--sanity also shuffles the weights, layer by layer: a map that stays as it was does not
show what was learnt (1810.03292). FILES are pictures; without them examples of
--dataset are taken, or of the test split. Writes WORKDIR/inspect/WHAT/: report.html,
PNGs, maps.npz. Exit status 2: bad input, one line on stderr.
"""

import os
import shlex
import sys
from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, opened, paths
from launch.machine import devices, opening


def define(values: flags.FlagValues):
  """The launcher's flags."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  opened.define(values, trust=True)
  flags.DEFINE_string(
    'what', None, 'What is shown, see above; without it the layers are listed.', **own
  )
  flags.DEFINE_string(
    'layer', None, 'Which layer, by its path; the list without --what has them.', **own
  )
  flags.DEFINE_string(
    'function', None, 'Which function of the model; its first of one image.', **own
  )
  flags.DEFINE_string(
    'target', None, 'Name or number of the class to explain; the likeliest.', **own
  )
  channels = 'Numbers of the channels to show, by comma; the first 32, of patches 8.'
  flags.DEFINE_list('channels', None, channels, **own)
  flags.DEFINE_integer(
    'num',
    None,
    'Examples of the split: 8, of features 2, activations 256, patches and embedding '
    '1000.',
    lower_bound=1,
    **own,
  )
  flags.DEFINE_string(
    'dataset',
    None,
    'Examples of this set, NAME or NAME:SPLIT (train, validation, test; default test); '
    ':SPLIT is of the set that the run was trained on.',
    **own,
  )
  flags.DEFINE_boolean(
    'sanity', False, 'Compare maps with those of shuffled weights.', **own
  )
  flags.DEFINE_integer(
    'seed', 0, 'Seed of the noise of smooth_grad and of shuffles.', **own
  )
  flags.DEFINE_boolean(
    'resize', False, "Bring pictures to the size of the model's images.", **own
  )
  paths.define(values, 'data_dir', None, 'Folder of data sets. Default: $DLX_DATA_DIR.')
  paths.define(values, 'out', None, 'Folder to write; WORKDIR/inspect/WHAT.')
  devices.define(values)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  # C++ hides what it computes: queries and keys, and their gradients by places.
  os.environ.setdefault('DLX_ONEDNN', 'off')
  # Threads of scikit-learn that spin would take the cores of others.
  os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
  out = values.out or f'{(values.workdir or "").rstrip("/")}/inspect/{values.what}'
  if values.what == 'nodes':
    from launch.inspection import nodes

    nodes.check(values, words)
    print(nodes.show(opening.start(values), values, out), end='')
    return 0
  run = opening.start(values)
  from dlx.inspect.maps import Model, function_of_images

  name, function = function_of_images(run.experiment, values.function)
  if values.what is None:
    print(listing(name, Model(function, run.state)))
    return 0
  from launch.inspection import page, views
  from launch.inspection.asked import Asked

  channels = check(values, words)
  num = values.num or views.NUM.get(values.what, views.FEW)
  model = Model(function, run.state)
  asked = Asked(
    model,
    run.state,
    pictures_of(run, name, words, values, num) if num else None,
    layer=values.layer,
    channels=channels,
    target=values.target,
    sanity=values.sanity,
    seed=values.seed,
  )
  view = views.VIEWS[values.what](asked)
  facts = {
    'experiment': run.record['experiment'],
    'workdir': values.workdir,
    'step': run.step,
    'function': name,
    'command': shlex.join(['python', '-m', 'launch.inspect', *argv[1:]]),
  }
  for line in view.lead:
    print(line)
  for table in view.tables:
    from dlx.run.tables import terminal

    terminal(table)
  print(f'wrote {page.write(out, facts, view)}')
  return 0


def listing(name: str, model: Any) -> str:
  """The layers of a function, with what each gives for one image."""
  rows = {x.name: ' x '.join(map(str, x.shape[1:])) for x in model.layers.values()}
  width = max(map(len, rows), default=0)
  lines = [f'  {layer:<{width}}  {shape}' for layer, shape in rows.items()]
  return '\n'.join([f'{name}: layers and what they give for an image', *lines])


def check(values: flags.FlagValues, words: list[str]) -> list[int] | None:
  """Numbers of --channels. Raises ConfigError: flags that do not go together."""
  from launch.inspection import views

  what = values.what
  if what not in views.VIEWS:
    names = ', '.join([*views.VIEWS, 'nodes'])
    raise ConfigError(f'--what={what} is not allowed: must be one of {names}.')
  if values.num is not None and words:
    raise ConfigError(f'--num is not allowed beside {words[0]}: it counts examples.')
  if words and what == 'filters':
    raise ConfigError(f'{words[0]} is not allowed: filters are of no picture.')
  if values.dataset is not None and (words or what == 'filters'):
    why = f'beside {words[0]}' if words else 'with --what=filters'
    raise ConfigError(f'--dataset={values.dataset} is not allowed {why}.')
  for flag, allowed in (
    ('target', views.OF_CLASSES),
    ('layer', views.OF_LAYERS),
    ('channels', views.OF_CHANNELS),
    ('sanity', [x for x in views.OF_CLASSES if x != 'rollout']),
  ):
    if getattr(values, flag) not in (None, False) and what not in allowed:
      raise ConfigError(
        f'--{flag} is not read by --what={what}, but by {", ".join(allowed)}.'
      )
  if values.channels is None:
    return None
  if wrong := [x for x in values.channels if not x.strip().isdecimal()]:
    raise ConfigError(
      f'--channels={wrong[0]} is not allowed: must be whole numbers, by comma.'
    )
  return [int(x) for x in values.channels]


def pictures_of(run: Any, what: str, words: list[str], values: Any, num: int):
  """Files, examples of --dataset, or of the test split."""
  from dlx.inspect.maps import pictures

  function, data_dir = run.functions[what], values.data_dir
  if words:
    return pictures.of_files(function, words, resize=values.resize)
  if values.dataset is None:
    return pictures.of_split(run, function, num, data_dir=data_dir)
  return pictures.of_dataset(
    run, what, values.dataset, num, resize=values.resize, data_dir=data_dir
  )


if __name__ == '__main__':
  sys.exit(main(sys.argv))
