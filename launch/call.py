"""Calls what a trained model can do: predicts, generates, samples, encodes, scores.

  python -m launch.call --workdir=runs/cnn                  what it can do
  python -m launch.call --workdir=runs/cnn predict a.png b.png --out=table.csv
  python -m launch.call --workdir=runs/cnn predict --dataset=mnist:test --out=a.csv
  python -m launch.call --workdir=runs/gpt generate prompt='To be' temperature=0.8
  python -m launch.call --workdir=runs/ddpm sample label=3 --num=64 --out=grid.png

The name of a function, then files (dlx/run/answers.py says which) and NAME=VALUE of its
inputs and options. Prints a table or the text; --out writes .csv, .jsonl or .npz, of
images .png. --dataset calls it on every example of a set, with the true label beside,
and writes .csv and .jsonl as the answers come.
Needs neither the data nor the mesh of the training. Exit status 2: bad input, one line
on stderr.
"""

import sys
from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.data import progress
from launch.flags import command_line, opened, paths
from launch.machine import devices, opening


def define(values: flags.FlagValues):
  """The launcher's flags."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  opened.define(values, trust=True)
  flags.DEFINE_integer(
    'num',
    None,
    'Rows, where no input says how many; of --dataset the first so many examples.',
    lower_bound=1,
    **own,
  )
  flags.DEFINE_string(
    'dataset',
    None,
    'Inputs are the examples of this set, NAME or NAME:SPLIT (train, validation, test; '
    'default test); :SPLIT is of the set that the run was trained on.',
    **own,
  )
  flags.DEFINE_boolean(
    'resize', False, "Bring pictures to the size of the model's images.", **own
  )
  data_dir = (
    'Folder of --dataset, and of the texts of a vocabulary that the workdir does not '
    'keep. Default: $DLX_DATA_DIR.'
  )
  paths.define(values, 'data_dir', None, data_dir)
  out = 'File for the answers: .csv, .jsonl, .npz or, of images, .png.'
  paths.define(values, 'out', None, out)
  devices.define(values)


def listing(run: Any) -> str:
  """The functions of a run with inputs, outputs and options."""
  from dlx.run.given import described

  lines = []
  for name, function in run.functions.items():
    lines += [name, f'  inputs   {described(function.inputs)}']
    lines.append(f'  outputs  {described(function.outputs)}')
    if function.options:
      options = ', '.join(f'{k}={v}' for k, v in function.options.items())
      lines.append(f'  options  {options}')
  return '\n'.join(lines)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  run = opening.start(values)
  if not words:
    print(listing(run))
    return 0

  from dlx.run import answers

  what, *words = words
  function = run.function(what)
  if values.out:
    answers.check_out(values.out, function.outputs)
  elif any(field.kind == 'image' for field in function.outputs.values()):
    raise ConfigError(f'{what} gives images: needs --out=FILE.png or .npz.')
  given, called = answers.inputs_of_words(function, words)
  fields = function.outputs
  if values.dataset is None:
    found = run.outputs(what, values.num, resize=values.resize, **given)
  elif called:
    raise ConfigError(f'--dataset={values.dataset} is not allowed beside {called[0]}.')
  else:
    from dlx.run import of_set

    with progress(what) as tick:
      asked: dict[str, Any] = dict(
        num=values.num, resize=values.resize, data_dir=values.data_dir, tick=tick
      )
      if values.out and answers.comes_in_parts(values.out, function.outputs):
        parts = of_set.in_parts(run, what, values.dataset, given, **asked)
        answers.write_parts(values.out, parts)
        return 0
      fields, found, called = of_set.of_set(run, what, values.dataset, given, **asked)
  rows = len(next(iter(found.values())))
  if not called:
    called = [str(i) for i in range(rows)]
  if values.out:
    answers.write(values.out, fields, found, called)
    return 0
  text = [k for k, v in found.items() if isinstance(v[0], str)]
  if text and values.dataset is None:
    print('\n\n'.join(answers.printable(row) for row in found[text[0]]))
  else:
    told = answers.columns(fields, found, rows)
    print(answers.table({'input': called, **told}))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
