"""The README and the tables tell the truth about what is there."""

import ast
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

from absl.testing import absltest

from dlx.run import experiments_by_name
from tests.every_experiment import contract_test

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


# Stands for a Python of version $0: makes environments of commands that write down what
# they are called with.
PYTHON = r"""#!/usr/bin/env bash
[[ "$1" == -m && "$2" == venv ]] || exit 0
mkdir -p "$3/bin"
echo "PATH=\"$3/bin:\$PATH\"" >"$3/bin/activate"
for name in pip python pyright ruff; do
  cat >"$3/bin/$name" <<'END'
#!/usr/bin/env bash
python3.0 - "$0" "$@" <<'CODE'
import json, os, pathlib, sys
command = pathlib.Path(sys.argv[1])  # WORK/3.12/bin/pip
with open(os.environ['RAN'], 'a') as file:
  words = [command.parts[-3], command.name, *sys.argv[2:]]
  file.write(json.dumps(words) + '\n')
for argument in sys.argv:
  if argument.startswith('--workdir='):
    folder = pathlib.Path(argument.partition('=')[2])
    folder.mkdir(parents=True)
    (folder / 'report.html').write_text('a report')
CODE
END
  chmod +x "$3/bin/$name"
done
"""


def commands_of_ci(folder: str) -> dict[str, list[str]]:
  """What .ci/run calls, by version of Python in the order of their tests, in
  environments that only note it.

  Args:
    folder: an empty one.
  """
  home = pathlib.Path(folder)
  for version in ('3.11', '3.12', '3.13'):
    (home / f'python{version}').write_text(PYTHON)
    (home / f'python{version}').chmod(0o755)
  (home / 'python3.0').symlink_to(sys.executable)
  ran = home / 'ran'
  subprocess.run(
    ['bash', ROOT / '.ci' / 'run'],
    env={'PATH': f'{home}:{os.environ["PATH"]}', 'HOME': folder, 'RAN': str(ran)},
    check=True, capture_output=True,
  )  # fmt: skip
  # Environments are made side by side; the tests of one begin after those of another.
  lines = [json.loads(line) for line in ran.read_text().splitlines()]
  found: dict[str, list[str]] = {line[0]: [] for line in lines if 'pytest' in line}
  for version, *words in lines:
    words = [re.sub(r'.*/(across|runs)(/.*)?$', r'\1', word) for word in words]
    names = {'across': 'ACROSS', 'runs': '--workdir=RUN'}
    words = [names.get(word, word) for word in words if word != '-q']
    found[version].append(shlex.join(words))
  return found


class ReadmeTest(absltest.TestCase):
  def test_ci_runs_the_commands_of_the_readme(self):
    commands = re.findall(r'```bash\n(python3 -m venv .*)\n```', README)
    self.assertLen(commands, 2)
    install, train = commands[0].split(' && ')[2:]
    install_tests, tests = commands[1].split(' && ')[2:]
    ran = commands_of_ci(self.create_tempdir().full_path)
    self.assertEqual(list(ran), ['3.13', '3.12', '3.11'])
    # The newest: all tests, after the install that README names for them and oneDNN's.
    newest = ran['3.13']
    self.assertEqual(newest[0], install_tests)
    for command in (
      "pip install -c constraints.txt -e '.[test,onednn]'",
      'ruff check',
      'ruff format --check',
      tests,
    ):
      self.assertIn(command, newest)
    self.assertLess(newest.index('python -m kernels.onednn'), newest.index(tests))
    # The next: what README names first, with nothing else installed.
    self.assertEqual(
      [ran['3.12'][0], ran['3.12'][2]], [install, train.replace('runs/cnn', 'RUN')]
    )
    self.assertIn(install_tests, ran['3.12'])
    self.assertEqual(ran['3.11'][0], install_tests)
    for python, marks in (
      ('3.12', 'versions or representative'),
      ('3.11', 'versions or representative or kernels or reference'),
    ):
      self.assertIn(f"{tests} -m '({marks}) and not slow'", ran[python])
    # A run that the newest wrote is read by the oldest.
    across = 'python -m tests.every_experiment.across'
    self.assertIn(f'{across} write ACROSS', newest)
    self.assertIn(f'{across} go_on ACROSS', ran['3.11'])

  def test_every_experiment_stands_in_both_tables(self):
    for area, found in experiments_by_name.by_area().items():
      results = (ROOT / 'experiments' / area / 'README.md').read_text()
      for name in found:
        self.assertIn(f'[`{name}`](experiments/{area}/{name}.py)', README)
        self.assertIn(f'`{name}`', results)

  def test_links_lead_somewhere(self):
    for path in (ROOT / 'README.md', *ROOT.glob('*/**/README.md')):
      for link in re.findall(r'\]\(([^)#]+)\)', path.read_text()):
        if '://' not in link:
          self.assertTrue((path.parent / link).exists(), f'{path}: {link}')

  def test_flags_of_the_readme_exist(self):
    # What is said of sizes is said of char_gpt, all else of any experiment.
    fields = {'size', *contract_test.load('cnn').Config.__dataclass_fields__}
    self.assertIn('size', contract_test.load('char_gpt').Config.__dataclass_fields__)
    for field in re.findall(r'--config\.(\w+)', README):
      self.assertIn(field, fields)

  def test_the_measured_figure_of_a_docstring_stands_in_the_results(self):
    for area, found in experiments_by_name.by_area().items():
      results = (ROOT / 'experiments' / area / 'README.md').read_text()
      for name in found:
        source = (ROOT / 'experiments' / area / f'{name}.py').read_text()
        docstring = ast.get_docstring(ast.parse(source))
        (line,) = re.findall(r'^Measured: (.+)$', docstring, re.M)
        rows = re.findall(rf'^\| `{name}` .*$', results, re.M)
        numbers = re.findall(r'\d+\.\d+|\d{5,}', line)
        self.assertTrue(numbers, name)
        fits = [all(number in row for number in numbers) for row in rows]
        self.assertTrue(any(fits), f'{name}: no row has {", ".join(numbers)}')

  def test_versions_of_the_published_figures_are_named(self):
    for area in experiments_by_name.by_area():
      results = (ROOT / 'experiments' / area / 'README.md').read_text()
      self.assertRegex(results, r'jax \d+\.\d+\.\d+')


if __name__ == '__main__':
  absltest.main()
