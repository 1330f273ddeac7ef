"""Finds out what is wrong with an experiment, a fork above all, and names the fix.

  python -m launch.doctor --exp=my.py --config.lr=1e-3
  python -m launch.doctor --exp=cnn --checks=data,rate --out=page.html
  python -m launch.doctor --exp=cnn --recipe --out=recipe.html
  python -m launch.doctor --exp=dcgan --gan

Short runs and measurements, from the ground up: the environment, the data (labels,
duplicates, leaks between splits, balance), finite values, the scale of the inputs, the
first loss, gradients by tensor, a learning-rate range test, dead units over a data set,
one batch learnt by heart, true against shuffled labels, training against test, where
time goes, the largest batch that fits; with --gan the balance of two players, and
samples that are alike, copied, or of few classes. What an experiment cannot be asked is
skipped with its reason. The first finding often explains those after it.

Exit status: 0 no error was found (warnings and notes may be); 1 an error was found; 2
bad input, one line on stderr.
"""

import sys
import time
from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, config_flags, paths
from launch.machine import devices


def define(values: flags.FlagValues):
  """The launcher's flags."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  flags.DEFINE_string(
    'exp', None, 'A name in experiments/, or the path of a .py file.', **own
  )
  flags.DEFINE_list(
    'checks',
    None,
    'Checks to make, by comma: environment, data, finite, inputs, loss, gradients, '
    'rate, units, overfit, labels, generalisation, time, memory; with --gan players, '
    'samples. Default: all.',
    **own,
  )
  flags.DEFINE_boolean(
    'gan',
    False,
    'Also what two players need: balance of losses, gradients and accuracy, diversity '
    'of samples, copies of training examples, missing classes.',
    **own,
  )
  flags.DEFINE_boolean(
    'recipe',
    False,
    'In place of the checks the seven steps of the usual recipe by short runs: overfit '
    'one batch, regularise, learning rate, batch size, curves, early stopping, '
    'ensemble; ends with the command that trains so.',
    **own,
  )
  flags.DEFINE_integer(
    'steps',
    200,
    'Steps of a short run; the schedule of the learning rate is as long.',
    lower_bound=50,
    **own,
  )
  help_ = (
    'Folder of data sets: raw files, prepared or your own. Default: $DLX_DATA_DIR.'
  )
  paths.define(values, 'data_dir', None, help_)
  out = 'File for what was found: .html, one page with figures, or .json.'
  paths.define(values, 'out', None, out)
  devices.define(values)


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  devices.use_cpu_without_accelerator()
  values, found = command_line.parse(argv, define, __doc__ or '')
  config = config_flags.build(found.config_class, values).resolved()
  devices.start_jax(config, values)
  from launch.diagnosis import checks, page, recipe, written

  if values.recipe and values.checks:
    raise ConfigError('--checks is not allowed with --recipe: leave one of them out.')
  if values.recipe and values.gan:
    raise ConfigError('--gan is not allowed with --recipe: leave one of them out.')
  written.check(values.out)
  given = found, config, values.steps, values.data_dir
  if values.recipe:
    patient, table, names = recipe.Cook(*given), recipe.STEPS, list(recipe.STEPS)
  else:
    patient = checks.Patient(*given)
    table = checks.table(patient, values.gan)
    names = checks.chosen(values.checks, table)
  findings = []
  for name in names:
    start = time.monotonic()
    report = checks.ask(patient, name, table[name])
    print(page.line(table[name].title, report, time.monotonic() - start), flush=True)
    findings += report.findings
  print(f'\n{page.summary(findings)}', flush=True)
  if isinstance(patient, recipe.Cook):
    print(f'\n{recipe.command(values.exp, argv, patient.settings)}', flush=True)
  if values.out:
    about = written.about(found.short, config, argv)
    titles = {name: table[name].title for name in names}
    written.write(values.out, about, findings, patient.reports, titles)
  return 1 if any(one.severity == 'error' for one in findings) else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv))
