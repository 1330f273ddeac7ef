"""The README and the tables tell the truth about what is there."""

import pathlib
import re

from absl.testing import absltest

from dlx.run.records.environment import versions
from launch.flags import experiments_by_name
from tests.every_experiment import contract_test

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()


class ReadmeTest(absltest.TestCase):
  def test_ci_runs_the_commands_of_the_readme(self):
    commands = re.findall(r'```bash\n(python3 -m venv .*)\n```', README)
    self.assertLen(commands, 2)
    ci = (ROOT / '.ci' / 'run').read_text()
    install, tests = re.search(
      r"(pip install -c constraints.txt -e '.\[test\]') && (python -m pytest.*)",
      commands[1],
    ).groups()
    self.assertIn(tests + '\n', ci)
    pins = re.search(r'pins=\((.+)\)', ci).group(1)
    self.assertIn(install, ci.replace('-q "${pins[@]}"', pins))
    self.assertIn('python -m launch.train --exp=cnn --workdir=runs/cnn', commands[0])

  def test_every_experiment_stands_in_both_tables(self):
    results = (ROOT / 'experiments' / 'README.md').read_text()
    for area, found in experiments_by_name.by_area().items():
      for name in found:
        self.assertIn(f'[`{name}`](experiments/{area}/{name}.py)', README)
        self.assertIn(f'`{name}`', results)

  def test_links_lead_somewhere(self):
    for text in (README, (ROOT / 'experiments' / 'README.md').read_text()):
      for link in re.findall(r'\]\(([^)#]+)\)', text):
        if '://' not in link:
          self.assertTrue((ROOT / link).exists(), link)

  def test_flags_of_the_readme_exist(self):
    # What is said of sizes is said of char_gpt, all else of any experiment.
    fields = {'size', *contract_test.load('cnn').Config.__dataclass_fields__}
    self.assertIn('size', contract_test.load('char_gpt').Config.__dataclass_fields__)
    for field in re.findall(r'--config\.(\w+)', README):
      self.assertIn(field, fields)

  def test_versions_of_the_published_figures_are_named(self):
    results = (ROOT / 'experiments' / 'README.md').read_text()
    self.assertRegex(results, r'jax \d+\.\d+\.\d+')
    self.assertIn('jax', versions())


if __name__ == '__main__':
  absltest.main()
