"""The names of all data sets, what each holds, and the one message for a wrong name.

A set of a new name is entered here; the module of its kind says how it is read. Every
name belongs to one kind, so that no name is taken for a folder of images by mistake.
"""

import difflib
from typing import NamedTuple

from dlx.errors import ConfigError

KINDS = {
  'images': 'labelled images',
  'photographs': 'photographs without labels',
  'tables': 'a table',
  'graphs': 'a graph',
  'sentences': 'labelled sentences',
  'characters': 'a text by characters',
  'translation': 'pairs of sentences in two languages',
}


class Entry(NamedTuple):
  """What a name stands for.

  Attributes:
    kind: one of KINDS.
    embedded: whether it needs no file: it comes with an installed package, or is made.
    about: one line for people.
  """

  kind: str
  embedded: bool
  about: str


SETS = {
  'digits': Entry('images', True, "handwritten digits, 8x8 (scikit-learn's)"),
  'mnist': Entry('images', False, 'handwritten digits, 28x28'),
  'fashion_mnist': Entry('images', False, 'clothes, 28x28'),
  'cifar10': Entry('images', False, 'colour photographs of 10 classes, 32x32'),
  'photographs': Entry('photographs', True, "two sample photographs (scikit-learn's)"),
  'wine': Entry('tables', True, '3 cultivars by 13 measurements'),
  'breast_cancer': Entry('tables', True, '2 classes by 30 measurements of cells'),
  'diabetes': Entry('tables', True, 'progression of a disease by 10 numbers'),
  'california_housing': Entry('tables', False, 'house values by 8 numbers a block'),
  'karate_club': Entry('graphs', True, "34 members of Zachary's karate club"),
  'cora': Entry('graphs', False, '2708 papers of 7 classes and their citations'),
  'citeseer': Entry('graphs', False, '3327 papers of 6 classes and their citations'),
  'pubmed': Entry('graphs', False, '19717 papers of 3 classes and their citations'),
  'grammar': Entry('sentences', True, 'generated sentences of two classes'),
  'sst2': Entry('sentences', False, 'movie reviews, positive or negative'),
  'pydoc': Entry('characters', True, "Python's reference manual"),
  'tiny_shakespeare': Entry('characters', False, "Shakespeare's plays"),
  'multi30k': Entry('translation', False, 'captions of images, English and German'),
}


def names(kind: str) -> tuple[str, ...]:
  """All sets of a kind, in the order of SETS."""
  return tuple(name for name, entry in SETS.items() if entry.kind == kind)


def check(name: str, kind: str, *, or_else: str = '') -> None:
  """Refuses a name that is not that of a set of this kind.

  Args:
    name: as given to `--config.dataset`.
    kind: one of KINDS.
    or_else: what may be given besides, e.g. 'the name of a folder in MNIST format':
      names that stand for no set at all then pass.

  Raises:
    ConfigError: a set of another kind; an unknown name, unless `or_else` is given.
  """
  known = names(kind)
  if name in known or (or_else and name not in SETS):
    return
  allowed = ', '.join(known) + (f', or {or_else}' if or_else else '')
  if name in SETS:
    raise ConfigError(
      f'dataset={name!r} holds {KINDS[SETS[name].kind]}, not {KINDS[kind]}: must be '
      f'one of {allowed}.'
    )
  close = difflib.get_close_matches(name, known, n=1)
  hint = f' Did you mean {close[0]}?' if close else ''
  raise ConfigError(
    f'dataset={name!r} is not known.{hint} For {KINDS[kind]} it must be one of '
    f'{allowed}.'
  )
