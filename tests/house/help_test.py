"""The help of every flag of every experiment stands alone: it is read in any order.

The comment on a field's line is the help of its flag. A reader of --helpfull has not
read the line above.
"""

import re

from absl.testing import absltest, parameterized

from dlx.run import experiments_by_name
from launch.flags import config_flags

# Words that point at another line.
POINTS = re.compile(
  r'\b(it|its|they|them|their|those|these|see above|see below)\b', re.IGNORECASE
)
# A sentence without its subject: "Of SGD.", "Chooses them."
HEADLESS = re.compile(r'(Of|By|As|From|Chooses|Also)\b')


def faults(comment: str) -> list[str]:
  """What is wrong with a help text; nothing where it stands alone."""
  found = []
  if not comment:
    found.append('is missing')
  if match := POINTS.search(comment):
    found.append(f'{match[0]!r} points at another line')
  if match := HEADLESS.match(comment):
    found.append(f'{match[0]!r} begins it: what is meant?')
  if comment and not comment.endswith('.'):
    found.append('is no sentence')
  return found


class HelpTest(parameterized.TestCase):
  @parameterized.parameters(*experiments_by_name.names())
  def test_every_flag_explains_itself(self, name):
    config_class = experiments_by_name.load(name).config_class
    leaves = config_flags.comments(config_class)
    self.assertGreater(len(leaves), 25)
    wrong = {flag: bad for flag, text in leaves.items() if (bad := faults(text))}
    self.assertEqual(wrong, {})

  @parameterized.parameters(
    ('Chooses them.', 2),
    ('Of SGD.', 1),
    ('Width of its hidden layer.', 1),
    ('See above; none: of the size.', 1),
    ('', 1),
    ('Seed by which the labelled images are chosen.', 0),
  )
  def test_faults_by_hand(self, comment, count):
    self.assertLen(faults(comment), count, faults(comment))


if __name__ == '__main__':
  absltest.main()
