"""Labelled images by name: what `--config.dataset` of a classifier of images takes.

Looking a name up reads nothing. A set is read from where its name says and from nowhere
else: an embedded set from scikit-learn; any other from raw files in the data folder,
then from a prepared TFDS set, then by TFDS's download where TensorFlow is installed.
What was used stands in `Loaded.origin`.
"""

import dataclasses
import functools
import re
from typing import Any, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import cifar, files, idx, tfds
from dlx.data.pictures.crops import Crop
from dlx.data.sets import blended, cards, registry, scikit
from dlx.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class ImageData:
  """What is known of a set of labelled images before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: source of `image` uint8 [H, W, C] and `label` int32 [].
    test: likewise.
    num_classes: labels are in [0, num_classes).
    class_names: one a class.
    shape: H, W, C.
    max_value: the pixel value that stands for 1.0.
    mean: of each channel of the training images over max_value. Of a set that is not
      known beforehand: 0.5.
    std: likewise, over all pixels of a channel.
    crop: of a set of picture files: which part of a picture the training stream shows,
      turned left to right or not; None: images are arrays, which it shows as they are.
  """

  name: str
  train: Source
  test: Source
  num_classes: int
  class_names: tuple[str, ...]
  shape: tuple[int, int, int]
  max_value: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  crop: Crop | None = None

  def to_unit(self, image: Any) -> Any:
    """Images as read, NumPy or jnp, in [0, 1], float32."""
    return image.astype(np.float32) / self.max_value

  def as_stored(self) -> 'ImageData':
    """The set with a mean and std by which normalised pixels are as they are stored."""
    channels = self.shape[-1]
    std = (1 / self.max_value,) * channels
    return dataclasses.replace(self, mean=(0.0,) * channels, std=std)


class _Spec(NamedTuple):
  sizes: tuple[int | None, int | None] = (None, None)  # Training and test images.
  shape: tuple[int, int, int] = (28, 28, 1)
  max_value: int = 255
  mean: tuple[float, ...] = (0.5,)
  std: tuple[float, ...] = (0.5,)
  class_names: tuple[str, ...] = tuple(map(str, range(10)))
  folders: tuple[str, ...] = ()  # Other names that its folder may have.


_OTHER = _Spec()
# Mean and std of digits, mnist and cifar10 are exact: from counts of the pixel values.
_SPECS = {
  'digits': _Spec(
    sizes=(scikit.DIGITS_SIZES['train'], scikit.DIGITS_SIZES['test']),
    shape=(8, 8, 1),
    max_value=16,
    mean=(0.30538339422407795,),
    std=(0.37611916809001955,),
  ),
  'mnist': _Spec(
    sizes=(60000, 10000),
    mean=(0.13066047627384286,),
    std=(0.3081078038564627,),
    folders=('MNIST',),
  ),
  # A folder of this name may hold another set in MNIST's format, so that neither sizes
  # nor checksums are declared. Mean and std as commonly quoted, not measured here.
  'fashion_mnist': _Spec(
    mean=(0.2860,),
    std=(0.3530,),
    class_names=(
      'T-shirt/top',
      'trouser',
      'pullover',
      'dress',
      'coat',
      'sandal',
      'shirt',
      'sneaker',
      'bag',
      'ankle boot',
    ),
    folders=('FashionMNIST',),
  ),
  'cifar10': _Spec(
    sizes=(50000, 10000),
    shape=(32, 32, 3),
    mean=(0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
    std=(0.24703223246328201, 0.24348512800005553, 0.2615878417279645),
    class_names=tuple(
      'airplane automobile bird cat deer dog frog horse ship truck'.split()
    ),
  ),
}


def images(name: str) -> ImageData:
  """A set of labelled images by name; reads nothing.

  Args:
    name: of the kind images; of a set of the user's own, by its card; or any other
      name: a folder of that name in MNIST's idx format, 28x28x1 in 10 classes, or K
      where it is given as NAME:K, sizes known after load. Images of a name that begins
      with emnist are turned upright: their files hold them transposed. NAME_blended is
      the set NAME with every image on a piece of a photograph, as MNIST-M is made of
      MNIST (dlx/data/sets/blended.py).

  Raises:
    ConfigError: a name that cannot be a folder's, or that of a set without images.
  """
  name, colon, count = name.partition(':')
  or_else = (
    'the name of a set of `python -m launch.data`, or of a folder in MNIST format'
  )
  card = registry.check(name, 'images', or_else=or_else)
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_.-]*', name):
    raise ConfigError(
      f'dataset={name!r} is not allowed: must be letters, digits, "_", "-" and ".", '
      'the name of a folder in --data_dir.'
    )
  spec = _SPECS.get(name, _OTHER)
  if card is not None and not colon:
    return _own(card)
  if name.endswith(blended.SUFFIX) and not colon:
    return _blended(images(name.removesuffix(blended.SUFFIX)))
  if colon:
    fits = count.isdecimal() and 2 <= int(count) <= 256 and name not in _SPECS
    if not fits:
      raise ConfigError(
        f'dataset={name}:{count} is not allowed: the number of classes is for a folder '
        'in MNIST format whose name dlx does not know, and must be in [2, 256].'
      )
    spec = _OTHER._replace(class_names=tuple(map(str, range(int(count)))))
  shapes = {
    'image': jax.ShapeDtypeStruct(spec.shape, np.uint8),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  read = lambda split: functools.partial(_read_images, name, split, spec)
  train, test = (
    Source(name, split, shapes, size, read(split))
    for split, size in zip(('train', 'test'), spec.sizes, strict=True)
  )
  return ImageData(
    name=name,
    train=train,
    test=test,
    num_classes=len(spec.class_names),
    class_names=spec.class_names,
    shape=spec.shape,
    max_value=spec.max_value,
    mean=spec.mean,
    std=spec.std,
  )


def _own(card: cards.Card) -> ImageData:
  facts = card.facts
  return ImageData(
    name=card.name,
    train=cards.source(card, 'train'),
    test=cards.source(card, 'test'),
    num_classes=len(facts['classes']),
    class_names=tuple(facts['classes']),
    shape=card.shapes['image'].shape,
    max_value=facts['max_value'],
    mean=tuple(facts['mean']),
    std=tuple(facts['std']),
    crop=Crop() if 'decoded' in facts else None,
  )


def with_crop(data: ImageData, crop: Crop) -> ImageData:
  """A set whose training stream shows other parts of its pictures.

  Args:
    data: of picture files; of a set of arrays it is returned as it is.
    crop: what is shown in training; its method resizes in evaluations, too.
  """
  if data.crop is None:
    return data

  def cropped(source: Source) -> Source:
    def read(data_dir: Any) -> Loaded:
      loaded = source.read(data_dir)
      image = loaded.data['image'].cropped(crop)
      return loaded._replace(data={**loaded.data, 'image': image})

    held = None if source.held is None else cropped(source.held)
    return dataclasses.replace(source, read=read, held=held)

  train, test = cropped(data.train), cropped(data.test)
  return dataclasses.replace(data, train=train, test=test, crop=crop)


def _blended(data: ImageData) -> ImageData:
  if data.crop is not None:
    raise ConfigError(
      f'dataset={data.name}{blended.SUFFIX} is not allowed: must be of images, and '
      f'{data.name} is of files of pictures: prepare it without --keep=files.'
    )
  over = functools.partial(
    blended.over_photographs, max_value=data.max_value, photographs=photographs()
  )
  return dataclasses.replace(
    data,
    name=f'{data.name}{blended.SUFFIX}',
    train=over(data.train),
    test=over(data.test),
    shape=(*data.shape[:2], 3),
    max_value=255,
    mean=(0.5,) * 3,  # As of every set that is not known beforehand.
    std=(0.5,) * 3,
  )


def photographs() -> Source:
  """scikit-learn's two sample photographs: `image` uint8 [427, 640, 3]."""
  shapes = {'image': jax.ShapeDtypeStruct(scikit.PHOTOGRAPH_SHAPE, np.uint8)}
  read = functools.partial(scikit.photographs, 'train')
  return Source('photographs', 'train', shapes, scikit.NUM_PHOTOGRAPHS, read)


def _read_images(name: str, split: str, spec: _Spec, data_dir: Any) -> Loaded:
  if name == 'digits':
    loaded = scikit.digits(split)
  elif name == 'cifar10':
    loaded = cifar.read(data_dir, split)
  else:
    loaded = idx.read(
      data_dir,
      name,
      split,
      names=spec.folders,
      shape=spec.shape,
      num_classes=len(spec.class_names),
      remedy='' if name in _SPECS else f': for K classes dataset={name}:K',
    )
  if loaded is None:
    loaded = _read_prepared(name, split, spec, data_dir)
  if name.lower().startswith('emnist'):
    # Published with rows and columns exchanged (arXiv:1702.05373), as idx and by TFDS.
    image = np.ascontiguousarray(loaded.data['image'].swapaxes(1, 2))
    origin = {**loaded.origin, 'transposed': True}
    loaded = Loaded({**loaded.data, 'image': image}, origin)
  wanted = spec.sizes[split == 'test']
  if wanted is not None and loaded.origin['size'] != wanted:
    raise DataError(
      f'{loaded.origin.get("path", name)}: {name} ({split}): expected {wanted} images, '
      f'found {loaded.origin["size"]}.'
    )
  return loaded


def _read_prepared(name: str, split: str, spec: _Spec, data_dir: Any) -> Loaded:
  prepared = tfds.find(data_dir, name)
  downloaded = False
  if prepared is None and tfds.can_download():
    prepared = tfds.download(name, data_dir)
    downloaded = prepared is not None
  if prepared is None:
    wanted = cifar.WANTED if name == 'cifar10' else idx.WANTED[split]
    names = ', '.join(registry.names('images'))
    known = (
      ''
      if name in _SPECS
      else (
        f'Names known beforehand: {names}. A set of your own: `python -m launch.data`. '
      )
    )
    raise files.missing(
      name,
      split,
      wanted,
      data_dir,
      note=f'{known}Or use the embedded set: dataset=digits.',
    )
  shapes = {
    'image': jax.ShapeDtypeStruct(spec.shape, np.uint8),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  bounds = [('label', len(spec.class_names))]
  loaded = tfds.read(prepared, name, split, shapes, bounds)
  return Loaded(loaded.data, {**loaded.origin, 'downloaded': downloaded})
