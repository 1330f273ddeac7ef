"""experiments/README.md: the example runs, the walk through the code is a path."""

import json
import pathlib
import re
import sys

from absl.testing import absltest

from launch import train
from tests.house import imports_test

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / 'experiments' / 'README.md').read_text(encoding='utf-8')


class _ExampleTest(absltest.TestCase):
  """The example of this number is a file, as a person saves it."""

  number: int

  def setUp(self):
    super().setUp()
    sources = re.findall(r'```python\n(""".*?)```', TEXT, re.S)
    self.assertLen(sources, 2)
    self.source = sources[self.number]
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.folder / f'example_{self.number}_of_the_readme.py'
    self.path.write_text(self.source, encoding='utf-8')
    path = list(sys.path)
    self.addCleanup(lambda: sys.path.__setitem__(slice(None), path))
    self.addCleanup(lambda: sys.modules.pop(self.path.stem, None))

  def check_length(self):
    self.assertLessEqual(max(map(len, self.source.splitlines())), 88)


class StudyTest(_ExampleTest):
  number = 1

  def test_trains(self):
    self.check_length()
    workdir = self.folder / 'run'
    small = ['--config.num_steps=20', '--config.seeds=2']
    args = ['train', f'--exp={self.path}', f'--workdir={workdir}']
    self.assertEqual(train.main([*args, *small]), 0)
    found = json.loads((workdir / 'study.json').read_text())
    self.assertLen(found['runs'], 4)
    self.assertEqual([c['claim'] for c in found['claims']],
                     ['Batch norm lowers the test loss.'])  # fmt: skip
    # Another length is refused there, in one line.
    self.assertEqual(train.main([*args, '--config.num_steps=30']), 2)


class ExampleTest(_ExampleTest):
  number = 0

  def test_trains(self):
    workdir = self.folder / 'run'
    status = train.main(
      ['train', f'--exp={self.path}', f'--workdir={workdir}', '--config.num_steps=60']
    )
    self.assertEqual(status, 0)
    found = json.loads((workdir / 'result.json').read_text())
    # A guess has 0.1, with a deviation of 0.016 over 360 images.
    self.assertGreater(found['metrics']['test/accuracy'], 0.5)

  def test_a_wrong_value_is_refused(self):
    status = train.main(['train', f'--exp={self.path}', '--config.gamma=-1'])
    self.assertEqual(status, 2)

  def test_is_as_long_as_the_rules_allow(self):
    self.check_length()


class WalkTest(absltest.TestCase):
  def test_twelve_files_at_most_each_reached_from_one_before(self):
    walk = re.findall(r'^\d+\. `([\w/]+\.py)`', TEXT, re.M)
    self.assertBetween(len(walk), 5, 12)
    self.assertEqual((walk[0], walk[-1]), ('launch/train.py', 'dlx/run/loop.py'))
    arrows = imports_test.file_arrows(ROOT)
    module = lambda path: path.removesuffix('.py').replace('/', '.')
    for i, path in enumerate(walk[1:], 1):
      self.assertTrue((ROOT / path).exists(), path)
      if path.startswith('experiments/'):
        continue  # Found by name, at run time.
      before = set().union(*(arrows[module(p)] for p in walk[:i]))
      self.assertIn(module(path), before, f'nothing read before leads to {path}')


if __name__ == '__main__':
  absltest.main()
