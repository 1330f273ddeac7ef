"""What all launchers share: flags in two passes, help, errors of one line.

A launcher defines its flags on a FlagValues of its own, so that --helpfull lists those
of the launcher and of the experiment and nothing else, and `main` can be called twice.
"""

import contextvars
import difflib
import functools
import inspect
import sys
from typing import Any, Callable, Iterable

from absl import flags

from dlx.errors import DISK, ConfigError, NonFiniteError
from dlx.run import experiments_by_name
from dlx.run.records.lasting import standard_streams
from launch.flags import config_flags

BAD_INPUT = 2  # Exit status of flag errors and ConfigError.
FAILED = 1  # Of a run that met a NaN or inf.
_HELP = ('help', 'helpshort', 'helpfull')
_NO_NUMBER = {  # Python's words for a text that is none, and what must be there.
  'invalid literal for int()': 'a whole number',
  'could not convert string to float': 'a number',
}


class Leave(Exception):
  """Ends a launcher at once with a status: the help was printed."""

  def __init__(self, status: int):
    super().__init__(status)
    self.status = status


def one_line_errors(main: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
  """Turns flag errors and ConfigError into one line on stderr and exit status 2.

  What a disk or a path has against it (errors.DISK), too. A NaN or inf is one line and
  status 1. Everything else is a bug and keeps its stack trace. The launcher runs in a
  context of its own: its data folder is forgotten afterwards.
  """

  @functools.wraps(main)
  @standard_streams()
  def guarded(argv: list[str]) -> int:
    try:
      return contextvars.copy_context().run(main, argv)
    except Leave as e:
      return e.status
    except (ConfigError, flags.Error) as e:
      print('error:', ' '.join(str(e).split()), file=sys.stderr)
      return BAD_INPUT
    except NonFiniteError as e:
      print('error:', ' '.join(str(e).split()), file=sys.stderr)
      return FAILED
    except OSError as e:
      if e.errno not in DISK:
        raise
      where = f'{e.filename}: ' if e.filename else ''
      print(
        f'error: {where}{DISK[e.errno]}: mend that and give the same command; a run '
        'goes on from its newest checkpoint.',
        file=sys.stderr,
      )
      return BAD_INPUT

  return guarded


def parse(
  argv: list[str],
  define: Callable[[flags.FlagValues], None],
  usage: str,
  studies: bool = False,
) -> tuple[flags.FlagValues, Any]:
  """Parses the flags of a launcher that has --exp, and those of that experiment.

  Args:
    argv: with the name of the program first.
    define: defines the launcher's flags; must define --exp.
    usage: printed by --help.
    studies: whether --exp may be a study.

  Returns:
    The parsed flags, and the experiment (`experiments_by_name.Found`), or the study
    (`FoundStudy`).

  Raises:
    flags.Error: unknown flag or wrong type.
    ConfigError: unknown experiment, trailing words.
    Leave: help was printed.
  """
  # First pass, on flags of its own: find --exp, also in a --flagfile, and refuse bad
  # flags of the launcher before the experiment (and with it jax) is imported.
  first = _new_flags(define)
  expanded = first.read_flags_from_files(argv[1:], force_gnu=True)
  try:
    words = _parsed(first, [argv[0], *_without_config(expanded)])
  except flags.UnrecognizedFlagError as e:
    if hint := _field_like(e.flagname, expanded):
      raise ConfigError(f'{str(e).rstrip(".")}. {hint}') from e
    raise
  if first.help or first.helpshort or (first.helpfull and not first.exp):
    print(usage.strip() + '\n')
    print(_help_of(first, 'launcher'))
    names = ', '.join(experiments_by_name.names())
    print(f'\nExperiments: {names}.')
    if studies:
      print(f'Studies: {", ".join(experiments_by_name.studies())}.')
    print('The fields of one of them: --exp=NAME --helpfull')
    raise Leave(0)
  if first.list:
    print(experiments_by_name.listing())
    raise Leave(0)
  refuse_words(words)
  load = experiments_by_name.load_any if studies else experiments_by_name.load
  found = load(first.exp)

  heading = f'--exp={found.short}'
  values = _new_flags(define)
  config_flags.define(found.config_class, values, heading)
  try:
    words = _parsed(values, [argv[0], *expanded])
  except flags.UnrecognizedFlagError as e:
    if 'Did you mean' in str(e):
      raise
    own = ', '.join(inspect.get_annotations(found.config_class)) or 'no own fields'
    raise flags.Error(
      f'{e}. {found.short} has {own}, and the fields of every run: '
      f'--exp={first.exp} --helpfull explains them.'
    ) from e
  if values.helpfull:
    print(usage.strip() + '\n')
    print(_help_of(values, 'launcher') + '\n')
    print(_help_of(values, heading))
    raise Leave(0)
  refuse_words(words)
  return values, found


def parse_alone(
  argv: list[str], define: Callable[[flags.FlagValues], None], usage: str
) -> flags.FlagValues:
  """Parses the flags of a launcher without --exp. Raises as `parse` does."""
  values, words = parse_words(argv, define, usage)
  refuse_words(words)
  return values


def parse_words(
  argv: list[str], define: Callable[[flags.FlagValues], None], usage: str
) -> tuple[flags.FlagValues, list[str]]:
  """The flags of a launcher without --exp, and the words that belong to no flag."""
  values = _new_flags(define)
  words = _parsed(values, argv)
  if any(values[name].value for name in _HELP):
    print(usage.strip() + '\n')
    print(_help_of(values, 'launcher'))
    raise Leave(0)
  return values, words


def chosen(words: list[str], known: Iterable[str]) -> tuple[str, list[str]]:
  """The first word, which says what to do, and those after it.

  Raises:
    ConfigError: it is none of those that are known.
  """
  if not words or words[0] not in known:
    wrong = f'{words[0]!r} is not allowed' if words else 'words are missing'
    raise ConfigError(f'{wrong}: the first word must be one of {", ".join(known)}.')
  return words[0], words[1:]


def refuse_words(words: list[str]):
  """Raises ConfigError where words stand on the command line that belong to no flag."""
  if words:
    raise ConfigError(
      f'{" ".join(words)!r} belongs to no flag: write every value as '
      '--NAME=VALUE; there are no positional arguments.'
    )


def _new_flags(define: Callable[[flags.FlagValues], None]) -> flags.FlagValues:
  values = flags.FlagValues()
  values.set_gnu_getopt(True)  # Flags behind a stray word are still flags.
  define(values)
  if 'exp' in values:
    flags.DEFINE_boolean(
      'list',
      False,
      'Print the experiments by area, a line each, and leave.',
      values,
      module_name='launcher',
    )
  for name in _HELP:
    flags.DEFINE_boolean(
      name,
      False,
      'Print help and leave; --exp=NAME --helpfull lists the fields of its Config.',
      values,
      module_name='launcher',
    )
  # Libraries that read absl's own flags (Grain's workers do) find the defaults.
  flags.FLAGS.mark_as_parsed()
  return values


def _parsed(values: flags.FlagValues, argv: list[str]) -> list[str]:
  """Parses, and returns the words that belong to no flag.

  Where --data_dir is given, an experiment that is built finds the cards of sets there.
  """
  try:
    words = values(argv)[1:]
  except flags.IllegalFlagValueError as e:
    for python, what in _NO_NUMBER.items():
      if python in str(e):
        said = f'{str(e).split(python)[0]}must be {what}.'
        raise flags.IllegalFlagValueError(said) from None
    raise
  except ValueError as e:  # absl's for --noNAME=VALUE is no flags.Error.
    raise ConfigError(str(e)) from None
  if 'data_dir' in values and values['data_dir'].value:
    from dlx.data.formats.files import look_in  # Not before it is needed: NumPy.

    look_in(values['data_dir'].value)
  return words


def _without_config(args: list[str]) -> list[str]:
  """The arguments without the flags whose name has a dot, and their values.

  A value may stand apart, `--config.lr 1e-3`; whether it does depends on the type of a
  field, unknown as yet: a word behind such a flag is left to the second pass.
  """
  kept, behind = [], False
  for i, arg in enumerate(args):
    if arg == '--':
      return kept + args[i:]
    name = arg.split('=', 1)[0]
    is_flag = arg.startswith('--') or (arg.startswith('-') and not behind)
    if is_flag and '.' in name:
      behind = '=' not in arg
    elif behind and not arg.startswith('--'):
      behind = False
    else:
      kept.append(arg)
      behind = False
  return kept


def _field_like(name: str, args: list[str]) -> str:
  """A hint at the field of the experiment's Config that a flag may have meant."""
  exp = [arg.partition('=')[2] for arg in args if arg.startswith('--exp=')]
  try:
    fields = experiments_by_name.fields_by_text(exp[-1] if exp else '')
  except (ConfigError, OSError, SyntaxError):  # Not what was asked.
    return ''
  near = difflib.get_close_matches(name, fields, n=1)
  told = f'Fields of its Config are --config.NAME, and --exp={exp[-1]} --helpfull lists'
  return f'Did you mean --config.{near[0]}?' if near else f'{told} them.'


def _help_of(values: flags.FlagValues, heading: str) -> str:
  """Flags under a heading, in the order in which they were defined."""
  lines = [f'{heading}:']
  for flag in values.get_flags_for_module(heading):
    if flag.name in _HELP[1:]:
      continue
    name = f'--[no]{flag.name}' if flag.boolean else f'--{flag.name}'
    kind = '' if flag.boolean else f'{flag.parser.syntactic_help or "text"}; '
    default = config_flags.value_to_text(flag.default)
    lines.append(
      flags.text_wrap(
        f'{name}: {flag.help}', indent='      ', firstline_indent='  ', length=88
      )
    )
    if heading != 'launcher' or flag.default is not None:
      lines.append(
        flags.text_wrap(f'({kind}default {default})', indent='      ', length=88)
      )
  return '\n'.join(lines)
