"""Pictures to arrays: Pillow's own steps, one after the other, are the reference."""

import io

import numpy as np
from PIL import Image
import pytest

from dlx.data.images.levels import IMAGENET_MEAN, IMAGENET_STD, normalise, to_float
from dlx.data.images.resize import imagenet_eval
from dlx.data.pictures import decode
from dlx.data.pictures.crops import Box, middle_box
from tests.dlx.data.pictures.photographs import encoded, photograph

HOW = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def middle(raw: bytes, short_side=256, size=224, **options) -> np.ndarray:
  box = lambda width, height: middle_box(width, height, short_side, size)
  return decode.part(raw, box, size, **options)


def difference(a, b) -> int:
  return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def opened(raw: bytes) -> Image.Image:
  return Image.open(io.BytesIO(raw)).convert('RGB')


@pytest.mark.parametrize('method', HOW)
@pytest.mark.parametrize('size', [(500, 375), (375, 500), (300, 300), (120, 90)])
def test_the_middle_is_that_of_the_whole_picture_resized(size, method):
  raw = encoded(photograph(0, *size))
  width, height = size
  short = min(size)
  whole = opened(raw).resize((256 * width // short, 256 * height // short), HOW[method])
  left, top = round((whole.width - 224) / 2), round((whole.height - 224) / 2)
  want = whole.crop((left, top, left + 224, top + 224))
  # One level where the passes over rows and columns are rounded in another order.
  assert difference(middle(raw, method=method), want) <= 1


def test_normalised_on_the_device_as_the_recipe_in_floating_point():
  raw = encoded(photograph(1, 500, 375))
  image = normalise(to_float(middle(raw)), IMAGENET_MEAN, IMAGENET_STD)
  want = imagenet_eval(np.asarray(opened(raw)))
  # Pillow rounds to levels after each of two passes: a level at most, of 255.
  off = np.abs(np.asarray(image) - np.asarray(want)) * np.array(IMAGENET_STD)
  assert off.max() <= 1 / 255


def test_the_recipe_of_torchvision():
  transforms = pytest.importorskip('torchvision.transforms')
  recipe = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
  box = Box(20, 30, 250, 190, flipped=True)
  for size in ((500, 375), (333, 501)):
    raw = encoded(photograph(0, *size))
    assert difference(middle(raw), recipe(opened(raw))) <= 1
    cut = transforms.functional.resized_crop(opened(raw), 30, 20, 190, 250, [224, 224])
    want = transforms.functional.hflip(cut)
    assert difference(decode.part(raw, lambda w, h: box, 224), want) == 0


def test_a_part_is_cut_out_and_resized():
  raw = encoded(photograph(0))
  cut = opened(raw).crop((20, 10, 90, 70)).resize((32, 32), HOW['bilinear'])
  plain = decode.part(raw, lambda w, h: Box(20, 10, 70, 60), 32)
  assert difference(plain, cut) == 0 and plain.dtype == np.uint8
  flipped = decode.part(raw, lambda w, h: Box(20, 10, 70, 60, True), 32)
  assert difference(flipped[:, ::-1], cut) == 0


def test_what_a_picture_is_taken_for():
  raw = encoded(photograph(0, 96, 64), 'PNG')
  want = middle(raw, 32, 28)
  seen = {}

  def choose(width, height):
    seen['size'] = width, height
    return middle_box(width, height, 32, 28)

  exif = Image.Exif()
  exif[0x0112] = 6  # Is shown turned clockwise.
  turned = photograph(0, 96, 64).transpose(Image.Transpose.ROTATE_90)
  found = decode.part(encoded(turned, 'PNG', exif=exif), choose, 28)
  assert seen['size'] == (96, 64) and difference(found, want) == 0
  grey = photograph(0, 96, 64).convert('L')
  found = middle(encoded(grey), 32, 28)
  assert difference(found[..., 0], found[..., 2]) == 0
  assert middle(encoded(grey), 32, 28, grey=True).shape == (28, 28, 1)
  # Only the upper 8 of 16 bits count: 256 v is v, where dividing by 257 gives v - 1.
  upper = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
  assert (
    difference(
      middle(encoded(upper, 'PNG'), 32, 28), middle(encoded(grey, 'PNG'), 32, 28)
    )
    == 0
  )
  red = Image.new('CMYK', (40, 40), (0, 255, 255, 0))
  assert difference(middle(encoded(red), 32, 28), [254, 0, 0]) <= 3
  nothing = Image.new('RGBA', (40, 40), (9, 9, 9, 0))
  assert (middle(encoded(nothing, 'PNG'), 32, 28) == 255).all()


@pytest.mark.parametrize('orientation', [1, 6])
def test_large_parts_of_a_jpeg_are_decoded_small(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  raw = encoded(photograph(0, 800, 600), exif=exif)
  box = Box(40, 30, 520, 500)
  full = decode.part(raw, lambda w, h: box, 64)
  scaled = decode.part(raw, lambda w, h: box, 64, scaled=True)
  off = np.abs(full.astype(int) - scaled)
  # 500 / 64 allow a quarter of the size: another filter, the same picture.
  assert 0 < off.mean() < 3 and off.max() < 40
  shifted = np.abs(full[:, 1:].astype(int) - scaled[:, :-1]).mean()
  assert off.mean() < shifted / 3
  small = Box(40, 30, 127, 200)
  same = [decode.part(raw, lambda w, h: small, 64, scaled=x) for x in (False, True)]
  assert difference(*same) == 0


def test_damaged_files_are_refused():
  raw = encoded(photograph(0))
  decode.check(raw, grey=False)
  for bad in (raw[: len(raw) // 2], raw[:100], b'', b'no picture'):
    with pytest.raises(OSError):
      decode.check(bad, grey=False)
    with pytest.raises(OSError):
      middle(bad, 32, 28)
  fractions = encoded(Image.new('F', (8, 8), 0.5), 'TIFF')
  with pytest.raises(ValueError, match='fractions'):
    decode.check(fractions, grey=False)
