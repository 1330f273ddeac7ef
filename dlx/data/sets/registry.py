"""The names of all data sets, what each holds, and the one message for a wrong name.

A set of a new name is entered here; the module of its kind says how it is read. Every
name belongs to one kind, so that no name is taken for a folder of images by mistake.
"""

import difflib
import hashlib
from typing import Any, NamedTuple

import numpy as np

from dlx.data.sets import cards
from dlx.errors import ConfigError, DataError

KINDS = {
  'images': 'labelled images',
  'photographs': 'photographs without labels',
  'tables': 'a table',
  'graphs': 'a graph',
  'sentences': 'labelled sentences',
  'characters': 'a text',
  'translation': 'pairs of sentences in two languages',
  'series': 'a series in time',
  'small_graphs': 'small graphs of classes',
}


class Entry(NamedTuple):
  """What a name stands for.

  Attributes:
    kind: one of KINDS.
    embedded: whether it needs no file: it comes with an installed package, or is made.
    about: one line for people.
    licence: as its publishers state it; NONE: they state none.
    sha256: of what an embedded set holds, see `verify`; None: of the files, where there
      are known sums, see dlx/data/formats/checksums.py.
  """

  kind: str
  embedded: bool
  about: str
  licence: str
  sha256: str | None = None


NONE = 'none stated'
UCI = 'CC BY 4.0 (UCI Machine Learning Repository)'

SETS = {
  'digits': Entry(
    'images',
    True,
    "handwritten digits, 8x8 (scikit-learn's)",
    UCI,
    'fe61bc84cd6a594d5ed1b937b7d8f8f791d4091d2a9df91fe5d6066156a4db6e',
  ),
  'mnist': Entry('images', False, 'handwritten digits, 28x28', 'CC BY-SA 3.0'),
  'fashion_mnist': Entry('images', False, 'clothes, 28x28', 'MIT'),
  'cifar10': Entry('images', False, 'colour photographs of 10 classes, 32x32', NONE),
  'photographs': Entry(
    'photographs',
    True,
    "two sample photographs (scikit-learn's)",
    'CC BY 2.0 (danielbuechele, vultilion)',
    'c1ef34f251839d4aea0f512ef005eeba01e9109bce8f7f4b7c4da6e3f45c54e5',
  ),
  'wine': Entry(
    'tables',
    True,
    '3 cultivars by 13 measurements',
    UCI,
    'c7e84e8e03b2b5a354287416d84d08945318450658a22a63c39973d8306c2ca4',
  ),
  'breast_cancer': Entry(
    'tables',
    True,
    '2 classes by 30 measurements of cells',
    UCI,
    'cdd5f37c36cbdfc2e5ee074cec7540fac54340874afb25917a673e446270d0d0',
  ),
  'diabetes': Entry(
    'tables',
    True,
    'progression of a disease by 10 numbers',
    NONE,
    'e9c1f7559552854a24dc45b41c446ce5f79f96e5da081bcce24b57492720b3f7',
  ),
  'california_housing': Entry(
    'tables', False, 'house values by 8 numbers a block', NONE
  ),
  'karate_club': Entry(
    'graphs',
    True,
    "34 members of Zachary's karate club",
    NONE,
    '73f0c371804a97030ab80e389303aaa78b9a8aff5b3ebd9aac3231562526ce77',
  ),
  'cora': Entry('graphs', False, '2708 papers of 7 classes and their citations', NONE),
  'citeseer': Entry(
    'graphs', False, '3327 papers of 6 classes and their citations', NONE
  ),
  'pubmed': Entry(
    'graphs', False, '19717 papers of 3 classes and their citations', NONE
  ),
  'grammar': Entry(
    'sentences',
    True,
    'generated sentences of two classes',
    'Apache-2.0',
    'e30fa0dd509baa71ee59e74d7eede5643714d1fe82530b9643276c65f52d4e05',
  ),
  'sst2': Entry('sentences', False, 'movie reviews, positive or negative', NONE),
  # Another text in every version of Python: result.json has the sum of each run's.
  'pydoc': Entry('characters', True, "Python's reference manual", 'PSF-2.0'),
  'tiny_shakespeare': Entry(
    'characters', False, "Shakespeare's plays", 'public domain'
  ),
  'reverse': Entry(
    'translation',
    True,
    'generated strings and the same from their end',
    'Apache-2.0',
    '8c905c79b7ec15dd58d47e7633a3f5ea89893f9f95fb188905a96fa929d7b936',
  ),
  'sort': Entry(
    'translation',
    True,
    'generated strings and their characters in order',
    'Apache-2.0',
    '9ff910e88806c025e8ec12555268190c98b7bb0cf8f70d748be129fb12346e7d',
  ),
  'phrases': Entry(
    'translation',
    True,
    'sentences of a grammar, English and German',
    'Apache-2.0',
    '41e8f5fe91c4c12013f06c0a3176ee0033404c7723db291c1ee6e9c434296f27',
  ),
  'multi30k': Entry(
    'translation', False, 'captions of images, English and German', 'CC BY-NC-SA 4.0'
  ),
  'sea_temperature': Entry(
    'series',
    True,
    'of the Pacific off Peru by month, 1950 to 2010',
    'public domain',
    'bfba7840f674ad90b6227b2ec65d2bde414dc8495d888b540ba22426147fee9b',
  ),
  'sunspots': Entry(
    'series',
    True,
    'their mean number by year, 1700 to 2008',
    'public domain',
    '9bcbe9dcdc8c75ef925a2f360ab677c2d84a17c6e65a8cf6644be24b82c5be09',
  ),
}


def verify(name: str, *parts: Any) -> None:
  """Refuses an embedded set that does not hold what it is known to hold.

  Args:
    name: of a set with a sum.
    parts: NumPy arrays, with the same dtypes everywhere, or bytes.

  Raises:
    DataError: another sum: the package it comes with has changed.
  """
  digest = hashlib.sha256()
  for part in parts:
    digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
  if digest.hexdigest() != SETS[name].sha256:
    raise DataError(
      f'{name}: sha256 {digest.hexdigest()} is not the known {SETS[name].sha256}: '
      'install the versions of constraints.txt, or choose another data set.'
    )


def names(kind: str) -> tuple[str, ...]:
  """All sets of a kind, in the order of SETS."""
  return tuple(name for name, entry in SETS.items() if entry.kind == kind)


def check(name: str, kind: str, *, or_else: str = '') -> cards.Card | None:
  """Refuses a name that is not that of a set of this kind.

  A name that is not in SETS is looked up among the sets of the user's own, by card.

  Args:
    name: as given to `--config.dataset`.
    kind: one of KINDS.
    or_else: what may be given besides, e.g. 'the name of a folder in MNIST format':
      names that stand for no set at all then pass.

  Returns:
    The card of a set of the user's own, else None.

  Raises:
    ConfigError: a set of another kind; an unknown name, unless `or_else` is given.
    DataError: a damaged card.
  """
  known = names(kind)
  card = None if name in SETS else cards.find(name)
  found = SETS[name].kind if name in SETS else card.kind if card else None
  if found == kind or (or_else and found is None):
    return card
  if found is None:
    known += tuple(card.name for card in cards.every() if card.kind == kind)
  if kind in cards.KINDS and not or_else:
    or_else = 'a set of your own in --data_dir, from `python -m launch.data`'
  allowed = ', '.join(known) + (f', or {or_else}' if or_else else '')
  if found is not None:
    raise ConfigError(
      f'dataset={name!r} holds {KINDS[found]}, not {KINDS[kind]}: must be one of '
      f'{allowed}.'
    )
  close = difflib.get_close_matches(name, known, n=1)
  hint = f' Did you mean {close[0]}?' if close else ''
  raise ConfigError(
    f'dataset={name!r} is not known.{hint} For {KINDS[kind]} it must be one of '
    f'{allowed}.'
  )
