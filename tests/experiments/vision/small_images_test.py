"""What AlexNet and VGG make of small images, by the rules of their docstrings."""

import re

from absl.testing import absltest, parameterized

from dlx.inspect import layers
from experiments.vision import alexnet, vgg


def sides(built, pattern: str) -> list[int]:
  """Heights of the maps of the layers whose name fits, in their order."""
  rows = layers.table(built).rows
  return [row.output[1] for row in rows if re.fullmatch(pattern, row.name)]


class SmallImagesTest(parameterized.TestCase):
  @parameterized.parameters(
    ('digits', [8, 4, 2, 2, 2]),
    ('mnist', [10, 5, 2, 2, 2]),
    ('cifar10', [8, 4, 2, 2, 2]),
  )
  def test_alexnet(self, dataset, wanted):
    built = alexnet.build(alexnet.Config(dataset=dataset, width=0.05))
    self.assertEqual(sides(built, r'conv\d'), wanted)

  @parameterized.parameters(
    ('digits', [8, 8, 8, 4, 2]), ('mnist', [28, 28, 14, 7, 3]),
    ('cifar10', [32, 16, 8, 4, 2]),
  )  # fmt: skip
  def test_vgg(self, dataset, wanted):
    built = vgg.build(vgg.Config(dataset=dataset, width=2))
    self.assertEqual(sides(built, r'conv\d_1'), wanted)


if __name__ == '__main__':
  absltest.main()
