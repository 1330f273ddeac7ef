"""What a card must say of a set, by its kind. A card may come from anywhere."""

from typing import Any, Mapping

import jax
import numpy as np

from dlx.data.dataset import MAX

SPLITS = ('train', 'validation', 'test')
# By kind: what may be the fields, and the splits that there must be.
FIELDS = {
  'images': ({'image', 'label'},),
  'tables': ({'features', 'label'}, {'features', 'target'}),
  'sentences': ({'text', 'label'},),
  'characters': ({'token'},),
  'translation': ({'source', 'target'},),
  'graphs': ({'label', 'edges', 'indices', 'values', *SPLITS},),
  'series': ({'value'},),
  'small_graphs': (
    {'nodes', 'edges', 'label'},
    {'nodes', 'edges', 'label', 'features'},
  ),
}
_NEEDED = {
  'images': {'train', 'test'},
  'tables': {'train', 'test'},
  'sentences': set(SPLITS),
  'characters': {'train', 'validation'},
  'translation': set(SPLITS),
  'graphs': {'train'},  # The whole graph; its splits are fields.
  'series': {'train'},  # The whole series, whose parts are stretches of it.
  'small_graphs': set(SPLITS),
}
LONGEST_SERIES = 1 << 15  # Its numbers stand in the card, hence in that of a run.


def check(facts: Mapping[str, Any], shapes: Mapping[str, jax.ShapeDtypeStruct]):
  """Refuses facts that lack something, contradict each other or are of another type.

  Args:
    facts: as in a card.
    shapes: of one example, by field.

  Raises:
    ValueError, KeyError, TypeError, AttributeError, OverflowError: what is wrong.
  """
  kind = facts['kind']
  if set(shapes) not in FIELDS[kind]:
    raise ValueError(f'fields are {sorted(shapes)}')
  for shape in shapes.values():
    if shape.dtype.kind not in 'iufb' or any(n < 1 for n in shape.shape):
      raise ValueError(f'a field is {shape.dtype} of shape {shape.shape}')
  sizes = facts['sizes']
  if not _NEEDED[kind] <= set(sizes) <= set(SPLITS):
    raise ValueError(f'splits are {sorted(sizes)}')
  if not all(_whole(n, 1) for n in sizes.values()):
    raise ValueError(f'sizes are {sizes}')
  if 'label' in shapes:
    _check_classes(facts, of_nodes=kind == 'graphs')
  for field, dtype in (('label', 'i'), ('target', 'f')):
    shape = shapes.get(field)
    if kind in ('graphs', 'translation') or shape is None:
      continue
    if shape.dtype.kind != dtype or shape.shape:
      raise ValueError(f'{field} is {shape.dtype} {shape.shape}')
  if kind == 'characters':
    _check_tokens(facts)
  elif kind == 'sentences':
    _check_sentences(facts, shapes)
  elif kind == 'translation':
    _check_words('languages', facts['languages'], 2)
    for name, least in (('vocabulary_sizes', 3), ('longest', 1)):
      if len(facts[name]) != 2 or not all(_whole(n, least) for n in facts[name]):
        raise ValueError(f'{name} is {facts[name]}')
    _check_coder(facts, *facts['vocabulary_sizes'])
    if 'length_counts' in facts:
      _check_pairs(facts)
    if any(x.dtype != np.uint8 or len(x.shape) != 1 for x in shapes.values()):
      raise ValueError(f'sentences are {dict(shapes)}')
  elif kind == 'graphs':
    _check_graph(facts, shapes)
  elif kind == 'series':
    _check_series(facts, shapes)
  elif kind == 'small_graphs':
    _check_small_graphs(facts, shapes)
  else:
    _check_numbers(facts, shapes)
  if 'decoded' in facts:
    _check_decoded(facts, shapes)


def stored(facts: Mapping[str, Any]) -> tuple[str, ...]:
  """The fields that lie in the folder of a set.

  Those of its examples; of pictures that are decoded when they are asked for their
  `file`, below the folder of the pictures, its `bytes` and its `sha256`.
  """
  names = ('file', 'bytes', 'sha256', 'label')
  return names if 'decoded' in facts else tuple(facts['fields'])


def columns(facts: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
  """The columns of a table that its features stand for: (name, values) of each.

  A column of numbers has no values and is one feature. A category is one feature a
  value, `NAME=VALUE`, 1 or 0; all are 0 where the value is missing or is not one of
  them. A card that does not say holds numbers alone. What `dates` names is a number of
  days.
  """
  told = facts.get('columns')
  if told is None:
    return [(name, ()) for name in facts['feature_names']]
  return [(x['name'], tuple(map(str, x.get('values', ())))) for x in told]


def dates(facts: Mapping[str, Any]) -> frozenset[str]:
  """The columns of numbers that are days since 1970-01-01, UTC where they had a zone.

  A card that does not say has none.
  """
  return frozenset(x['name'] for x in facts.get('columns') or () if x.get('date'))


def _check_classes(facts, of_nodes: bool):
  classes, sizes = facts['classes'], facts['sizes']
  _check_words('classes', classes, len(classes))
  counts = {split: facts['counts'][split] for split in (SPLITS if of_nodes else sizes)}
  if len(classes) < 2 or any(
    len(x) != len(classes) or min(x) < 0 for x in counts.values()
  ):
    raise ValueError('classes and their counts do not fit')
  if not of_nodes and any(sum(x) != sizes[split] for split, x in counts.items()):
    raise ValueError('classes and their counts do not fit')
  if not min(counts['train']):
    empty = classes[counts['train'].index(0)]
    raise ValueError(f'class {empty!r} has no example to train on')


def num_tokens(facts: Mapping[str, Any]) -> int:
  """How many tokens a text of the user's own can have."""
  kind = facts.get('tokens', 'characters')
  if kind == 'bpe':
    return 256 + len(facts['merges'])
  if kind == 'tokenizer':
    return facts['num_tokens']
  return 1 + len(facts['words']) if kind == 'words' else len(facts['vocabulary'])


def _check_tokens(facts):
  kind = facts.get('tokens', 'characters')
  if kind == 'bpe':
    _check_merges(facts)
  elif kind == 'words':
    _check_words('words', facts['words'], len(set(facts['words'])))
  elif kind == 'characters':
    _check_words('vocabulary', [facts['vocabulary'] or 0], 1)
  elif kind == 'tokenizer':
    _check_file(facts)
  else:
    raise ValueError(f'tokens are {kind!r}')
  if not _whole(facts.get('validation_bytes', 1), 1):
    raise ValueError(f'validation_bytes is {facts["validation_bytes"]}')


def _check_merges(facts):
  merges = facts['merges']
  pairs = all(len(x) == 2 and _whole(x[0], 0) and _whole(x[1], 0) for x in merges)
  # Of bytes and of merges that were made before.
  if not pairs or any(max(x) >= 256 + i for i, x in enumerate(merges)):
    raise ValueError('merges are no pairs of tokens')


def _check_file(facts):
  """Of a tokenizer.json; whether it is one shows when a text is read."""
  packed, size = facts['tokenizer'], facts['num_tokens']
  if not isinstance(packed, str) or not packed or not _whole(size, 1):
    raise ValueError('tokenizer is no text, or num_tokens no number')


def _check_coder(facts, *sizes: int):
  """Of texts whose rows are padded: what they are cut into, and how many there are."""
  kind = facts.get('tokens', 'words')
  if kind in ('words', 'characters'):
    return
  if kind == 'bpe':
    _check_merges(facts)
  elif kind == 'tokenizer':
    _check_file(facts)
  else:
    raise ValueError(f'tokens are {kind!r}')
  # Before the tokens of a file stand two: see padded.Shifted.
  if set(sizes) != {num_tokens(facts) + (2 if kind == 'tokenizer' else 0)}:
    raise ValueError('there are not as many tokens as are told')


def _check_sentences(facts, shapes):
  if len(shapes['text'].shape) != 1 or shapes['text'].dtype != np.uint8:
    raise ValueError(f'a text is {shapes["text"]}')
  counts, lengths = facts['length_counts'], facts['lengths']
  if not all(_whole(n, 0) for n in counts) or sum(counts) != facts['sizes']['train']:
    raise ValueError('length_counts do not sum up to the training texts')
  # Each bucket has texts of its own length, the last of the longest.
  known = [n for n in range(1, len(counts) + 1) if counts[n - 1]]
  if lengths != sorted(set(lengths) & set(known)) or lengths[-1:] != [len(counts)]:
    raise ValueError(f'lengths are {lengths}')
  if not _whole(facts['vocabulary_size'], 3):
    raise ValueError(f'vocabulary_size is {facts["vocabulary_size"]}')
  _check_coder(facts, facts['vocabulary_size'])


def _check_pairs(facts):
  """Tokens of the longer side of training pairs, and lengths of batches."""
  counts, lengths = facts['length_counts'], facts['bucket_lengths']
  source, target = facts['longest']
  if (
    not all(_whole(n, 0) for n in counts)
    or sum(counts) != facts['sizes']['train']
    or len(counts) > max(source, target + 1)
    or not counts[-1]
  ):
    raise ValueError('length_counts are not those of the training pairs')
  known = [n for n in range(1, len(counts) + 1) if counts[n - 1]]
  rise = lengths == sorted(set(lengths) & set(known))
  if not rise or lengths[-1:] not in ([], [len(counts)]):
    raise ValueError(f'bucket_lengths are {lengths}')


def _check_graph(facts, shapes):
  if facts['sizes'] != {'train': 1} or not _whole(facts['num_features'], 1):
    raise ValueError(f'sizes are {facts["sizes"]}, features {facts["num_features"]}')
  (nodes,), (entries,) = shapes['label'].shape, shapes['values'].shape
  (edges, _) = shapes['edges'].shape
  wanted = {
    'label': ((nodes,), np.int32),
    'edges': ((edges, 2), np.int32),
    'indices': ((entries, 2), np.int32),
    'values': ((entries,), np.float32),
    **dict.fromkeys(SPLITS, ((nodes,), np.bool_)),
  }
  for name, (shape, dtype) in wanted.items():
    if shapes[name].shape != shape or shapes[name].dtype != dtype:
      raise ValueError(f'{name} is {shapes[name]}')


def _check_small_graphs(facts, shapes):
  (nodes,), (edges, _) = shapes['nodes'].shape, shapes['edges'].shape
  names = facts['feature_names']
  wanted = {'nodes': ((nodes,), np.int32), 'edges': ((edges, 2), np.int32)}
  if 'features' in shapes:
    wanted['features'] = ((nodes, len(names)), np.float32)
    _check_words('feature_names', names, len(names))
    for key, least in (('mean', -np.inf), ('std', 0)):
      value_F = np.array(facts[key], np.float64)
      if (
        value_F.shape != (len(names),)
        or not (np.isfinite(value_F) & (value_F > least)).all()
      ):
        raise ValueError(f'{key} is {facts[key]}')
  elif names:
    raise ValueError(f'feature_names is {names}')
  for name, (shape, dtype) in wanted.items():
    if shapes[name].shape != shape or shapes[name].dtype != dtype:
      raise ValueError(f'{name} is {shapes[name]}')


def _check_series(facts, shapes):
  size = facts['sizes']['train']
  if set(facts['sizes']) != {'train'} or size > LONGEST_SERIES:
    raise ValueError(f'sizes are {facts["sizes"]}')
  if shapes['value'] != jax.ShapeDtypeStruct((), np.float64):
    raise ValueError(f'value is {shapes["value"]}')
  value_N = series_values(facts)
  if len(value_N) != size or not np.isfinite(value_N).all():
    raise ValueError('values are not as many finite numbers as the series has')
  _check_words('unit and step', [facts['unit'], facts['step']], 2)
  if not _whole(facts['period'], 1):
    raise ValueError(f'period is {facts["period"]}')


def series_values(facts: Mapping[str, Any]) -> np.ndarray:
  """The numbers of a series, float64 [N]."""
  return np.array(facts['values'].split(), np.float64)


def _check_numbers(facts, shapes):
  """Of images and tables."""
  is_image = 'image' in shapes
  shape = shapes['image' if is_image else 'features'].shape
  if len(shape) != (3 if is_image else 1):
    raise ValueError(f'an example has the shape {list(shape)}')
  needed: dict[str, int] = {'mean': shape[-1], 'std': shape[-1]}
  if is_image:
    needed['max_value'] = 1
  else:
    needed['median'] = shape[-1]
    _check_words('feature_names', facts['feature_names'], shape[-1])
    _check_words('target_name', [facts['target_name']], 1)
    spread = [
      word
      for name, values in columns(facts)
      for word in ([f'{name}={value}' for value in values] or [name])
    ]
    if spread != facts['feature_names']:
      raise ValueError(f'columns are {facts["columns"]}')
    for x in facts.get('columns') or ():
      date = x.get('date', False)
      if not isinstance(date, bool) or (date and x.get('values')):
        raise ValueError(f'columns are {facts["columns"]}: date is {date}')
    missing = facts.get('missing', [0] * len(spread))
    if len(missing) != len(spread) or not all(isinstance(n, int) for n in missing):
      raise ValueError(f'missing is {missing}')
    ((metric, _),) = facts['baseline'].items()
    if metric != ('accuracy' if 'label' in shapes else 'rmse'):
      raise ValueError(f'the baseline is {metric}')
  if 'label' not in shapes:
    needed |= {'target_mean': 1, 'target_std': 1}
  for name, length in needed.items():
    x = np.atleast_1d(np.array(facts[name], float))
    above_0 = name.endswith(('std', 'max_value'))
    if x.shape != (length,) or not np.isfinite(x).all() or (above_0 and x.min() <= 0):
      raise ValueError(f'{name} is {facts[name]}')


def _check_decoded(facts, shapes):
  """Of pictures that are decoded when they are asked for."""
  height, width, channels = shapes['image'].shape
  if shapes['image'].dtype != np.uint8 or height != width or channels not in (1, 3):
    raise ValueError(f'a picture is {shapes["image"]}')
  short_side = facts['decoded']['short_side']
  if not _whole(short_side, height):
    raise ValueError(f'short_side is {short_side}')


def _whole(n: Any, least: int) -> bool:
  return isinstance(n, int) and not isinstance(n, bool) and least <= n <= MAX


def _check_words(name: str, words: Any, length: int):
  if len(words) != length or not length or not all(isinstance(w, str) for w in words):
    raise ValueError(f'{name} is {words}')
