"""Tests for launch/flags/command_line.py."""

import errno
import re
import sys

from absl import flags
import pytest

from dlx.errors import DISK, ConfigError
from launch.flags import command_line, config_flags

FORK = """
import dataclasses
from dlx import experiment

@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  lr: float = 0.5  # Rate of the fork.
  shift: int = 0  # May be negative.

def build(config):
  return config
"""


def define(values):
  flags.DEFINE_string('exp', None, 'Which.', values, module_name='launcher')
  flags.DEFINE_integer('stop', 7, 'When.', flag_values=values, module_name='launcher')


@pytest.fixture
def fork(tmp_path, monkeypatch):
  path = tmp_path / 'fork_of_command_line.py'
  path.write_text(FORK)
  monkeypatch.setattr(sys, 'path', list(sys.path))
  yield str(path)
  sys.modules.pop(path.stem, None)


def config_of(*args):
  values, found = command_line.parse(['program', *args], define, 'Usage.')
  return config_flags.build(found.config_class, values)


class TestParse:
  @pytest.mark.parametrize('order', [1, -1])
  def test_values_may_stand_apart_and_anywhere(self, fork, order):
    pairs = [['--exp', fork], ['--config.lr', '3'], ['--config.shift', '-2']]
    pairs += [['--config.stream'], ['--noconfig.eval_at_start'], ['--stop', '9']]
    config = config_of(*sum(pairs[::order], []))
    assert (config.lr, config.shift, config.stream) == (3.0, -2, True)

  def test_flagfile(self, fork, tmp_path):
    file = tmp_path / 'flags.txt'
    file.write_text(f'# A comment.\n--exp={fork}\n--config.lr=2\n')
    assert config_of(f'--flagfile={file}').lr == 2.0
    assert config_of(f'--flagfile={file}', '--config.lr=4').lr == 4.0

  def test_two_calls_know_nothing_of_each_other(self, fork):
    assert config_of(f'--exp={fork}', '--config.lr=2').lr == 2.0
    assert config_of(f'--exp={fork}').lr == 0.5

  @pytest.mark.parametrize('args', [['x'], ['--config.stream', 'x'], ['--', 'x']])
  def test_trailing_words(self, fork, args):
    with pytest.raises(ConfigError, match="'x' belongs to no flag"):
      config_of(f'--exp={fork}', *args)

  @pytest.mark.parametrize(
    'arg, message',
    [
      ('--stpo=3', "'stpo'. Did you mean: stop"),
      ('--stop=x', 'stop=x'),
      ('--stop', 'Missing value'),
      ('--flagfile=/nowhere/at/all', 'flagfile'),
    ],
  )
  def test_bad_flags_of_the_launcher_come_before_the_experiment(self, arg, message):
    with pytest.raises(flags.Error, match=message):
      config_of('--exp=/nowhere/at/all.py', arg)

  @pytest.mark.parametrize(
    'arg, message',
    [
      ('--config.lrr=3', "'config.lrr'. Did you mean: config.lr"),
      (
        '--config.learning_rate=3',
        "'config.learning_rate'. fork_of_command_line has lr, shift, and .* "
        '--exp=/.*/fork_of_command_line.py --helpfull explains',
      ),
      ('--confg.lr=3', "'confg.lr'. Did you mean: .*config.lr"),
      ('--config.lr', 'Missing value'),
      ('--noconfig.lr', "'noconfig.lr'"),
    ],
  )
  def test_bad_flags_of_the_config(self, fork, arg, message):
    with pytest.raises(flags.Error, match=message):
      config_of(f'--exp={fork}', arg)

  @pytest.mark.parametrize(
    'arg, hint',
    [
      ('--shft=3', 'Did you mean --config.shift?'),
      (
        '--zzz=3',
        'Fields of its Config are --config.NAME, and --exp=.* --helpfull lists',
      ),
    ],
  )
  def test_a_field_given_without_its_prefix(self, fork, arg, hint):
    with pytest.raises(ConfigError, match=f'Unknown command line flag .*{hint}'):
      config_of(f'--exp={fork}', arg)

  def test_value_for_a_negated_flag(self, fork):
    with pytest.raises(ConfigError, match='does not take an argument'):
      config_of(f'--exp={fork}', '--noconfig.stream=true')


class TestHelp:
  def test_helpfull_lists_every_field_of_the_experiment(self, fork, capsys):
    with pytest.raises(command_line.Leave) as leave:
      config_of('--helpfull', f'--exp={fork}')
    assert leave.value.status == 0
    out = capsys.readouterr().out
    assert out.startswith('Usage.')
    own = out.split('--exp=fork_of_command_line:')[1]
    assert '--config.lr: Rate of the fork.\n      (a finite number; default 0.5)' in own
    assert '--[no]config.stream: Read batches on the host' in own
    assert '(a whole number, or none for off; default none)' in own
    assert own.index('config.lr') < own.index('config.seed')
    assert '--stop: When.\n      (an integer; default 7)' in out

  def test_helpfull_tells_defaults_not_what_was_given(self, fork, capsys):
    with pytest.raises(command_line.Leave):
      config_of(f'--exp={fork}', '--config.lr=4', '--helpfull')
    assert '(a finite number; default 0.5)' in capsys.readouterr().out

  @pytest.mark.parametrize('arg', ['--help', '--helpshort', '--helpfull'])
  def test_help_without_an_experiment_names_those_there_are(self, arg, capsys):
    with pytest.raises(command_line.Leave):
      config_of(arg)
    assert 'Experiments: ' in capsys.readouterr().out

  def test_list_names_experiments_by_area(self, capsys):
    with pytest.raises(command_line.Leave) as leave:
      config_of('--list')
    assert leave.value.status == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index('vision')
    assert any(re.match('  cnn +Conv-BN-ReLU', line) for line in lines[at:])


class TestOneLineErrors:
  @pytest.mark.parametrize(
    'error', [ConfigError('two\nlines'), flags.IllegalFlagValueError('two\n lines')]
  )
  def test_bad_input(self, error, capsys):
    @command_line.one_line_errors
    def main(argv):
      raise error

    assert main([]) == 2
    assert capsys.readouterr().err == 'error: two lines\n'

  @pytest.mark.parametrize(
    'fault', ['ENOSPC', 'EACCES', 'EIO', 'ENAMETOOLONG', 'ELOOP']
  )
  def test_what_a_disk_has_against_it(self, fault, capsys):
    @command_line.one_line_errors
    def main(argv):
      raise OSError(getattr(errno, fault), 'text of the system', '/runs/a')

    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1
    assert said.startswith(f'error: /runs/a: {DISK[getattr(errno, fault)]}: mend that')

  def test_a_missing_file_is_a_bug(self):
    @command_line.one_line_errors
    def main(argv):
      raise FileNotFoundError(errno.ENOENT, 'no such file', 'x')

    with pytest.raises(FileNotFoundError):
      main([])

  def test_bugs_keep_their_stack_trace(self):
    @command_line.one_line_errors
    def main(argv):
      raise ValueError('a bug')

    with pytest.raises(ValueError, match='a bug'):
      main([])

  def test_status_passes(self):
    assert command_line.one_line_errors(lambda argv: 42)([]) == 42
