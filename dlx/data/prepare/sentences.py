"""Texts with a class each as a set: columns of a file, or a folder of .txt files.

FILE ...                      split here, class by class, by a seed
train.tsv dev.tsv test.tsv    as they are: by the words in their names
DIR/CLASS/*.txt               split here; or DIR/train/CLASS, DIR/test/CLASS
DIR/*.parquet                 its files
"""

import os
import pathlib
from typing import Any, NamedTuple, Sequence

import numpy as np

from dlx.data.prepare import columns, folders, readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.prepare.tokens import Asked, asked, of_texts
from dlx.data.sets import cards, sentences
from dlx.data.text import vocabulary
from dlx.errors import ConfigError, DataError

_WIDEST = 1 << 16  # Bytes of a text: every row of the set takes those of the longest.
_BUCKETS = 4


class _Text(NamedTuple):
  """A text, its class by name, where it stands, and its split where that is known."""

  text: str
  label: str
  place: str
  split: str | None


def prepare(
  places: Sequence[Any],
  name: str,
  data_dir: Any = None,
  *,
  text: str | None = None,
  label: str | None = None,
  max_length: int = 256,
  leave_out: Sequence[str] = (),
  test: float = 0.2,
  validation: float = 0.1,
  seed: int = 0,
  repeats: str = 'refuse',
  skip_bad: bool = False,
  encoding: str = 'utf-8',
  tokens: str | None = None,
  vocab_size: int | None = None,
  tokenizer: Any = None,
) -> Made:
  """Makes a set of `text` uint8 [L], UTF-8 with zeros after its end, and `label` int32.

  Args:
    places: files of the same columns (.csv, .tsv, .jsonl, .parquet), or one folder.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    text: column of the texts; of a folder of .txt files None.
    label: column of the classes, likewise.
    max_length: tokens after which texts are cut; training texts that are shorter lower
      it to the longest of them.
    leave_out: classes that are not used.
    test: share of each class that tests, where there is no such split.
    validation: share of each class of what is left that validates, likewise.
    seed: by which those are chosen.
    repeats: training texts that are also in another split: refuse, drop or keep.
    skip_bad: leave out rows without text or class, in place of refusing the file.
    encoding: of the files.
    tokens: what a model reads: words and marks, characters, or byte pairs (bpe), which
      are learnt from the training texts and stand in the card. None: words, unless
      there is a `tokenizer`.
    vocab_size: of byte pairs, tokens at most; None: 8192. Of words a run chooses.
    tokenizer: path of a tokenizer.json, whose tokens are taken.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file, line or column that cannot be taken; names it.
  """
  rows.check_share(test)
  rows.check_choices(repeats=repeats)
  rows.check_share(validation, 'validation')
  if not 1 <= max_length <= 1 << 16:
    raise ConfigError(
      f'--max_length={max_length} is not allowed: must be in [1, 65536].'
    )
  choice = asked(tokens, vocab_size, tokenizer, default='words')
  if vocab_size is not None and choice.kind != 'bpe':
    raise ConfigError(
      f'--vocab_size is not allowed with --tokens={choice.kind}: a run chooses by '
      '--config.min_count; or add --tokens=bpe.'
    )
  check_name(name, data_dir)
  notes: list[str] = []
  found, known = _found(places, text, label, encoding, leave_out, notes)
  found = _without_bad(found, skip_bad, notes)
  trained = {t.label for t in found if t.split in (None, 'train')}
  classes = known or rows.in_order(trained)
  number = {name: k for k, name in enumerate(classes)}
  if unknown := next((t for t in found if t.label not in number), None):
    raise DataError(
      f'{unknown.place}: class {unknown.label!r} is not among those of training.'
    )
  of_N = np.array([number[t.label] for t in found], np.int32)
  split_N = _assigned(found, of_N, classes, places[0], test, validation, seed, notes)
  at = {split: np.flatnonzero(split_N == split) for split in cards.SPLITS}
  splits = {split: [found[i] for i in index] for split, index in at.items()}
  kept = {split: [t.text for t in part] for split, part in splits.items()}
  texts, within = kept, 'a text'
  if choice.kind in ('words', 'characters'):
    max_length, texts = _cut(choice, kept, max_length, notes)
    within = f'{max_length} {choice.kind} or less'
  width = max(len(t.encode()) for part in texts.values() for t in part)
  for split, part in texts.items():
    for row, one in enumerate(part):
      if len(one.encode()) > _WIDEST:
        raise DataError(
          f'{splits[split][row].place}: {len(one.encode())} bytes in {within}: must be '
          f'at most {_WIDEST}: mend it or leave it out.'
        )
  with draft(name, data_dir) as new:
    for split, part in texts.items():
      new.add(split, text=sentences.as_bytes(part, width), label=of_N[at[split]])
    place_of = lambda split, row: splits[split][row].place
    rows.settle_repeats(new, repeats, place_of, notes)
    facts = _facts(new, classes, places[0], choice, max_length, notes)
    made = {
      'by': 'text',
      'source': [os.path.abspath(x) for x in places],
      **{'text': text, 'label': label, 'leave_out': list(leave_out), 'test': test},
      **{'validation': validation, 'seed': seed, 'repeats': repeats},
      **{'max_length': max_length, 'encoding': encoding, 'notes': notes},
      **choice.made,
    }
    new.finish('sentences', facts, made)
  return made_of(name, data_dir, notes)


def _cut(
  choice: Asked, texts: dict[str, list[str]], max_length: int, notes: list[str]
) -> tuple[int, dict[str, list[str]]]:
  """(The longest of what trains, at most `max_length` tokens; texts cut there)."""
  count = lambda text: len(vocabulary.tokenise(text, choice.marks, choice.characters))
  max_length = min(max_length, max(map(count, texts['train'])))
  end = lambda text: (
    max_length if choice.characters else vocabulary.end(text, max_length)
  )
  found = {split: [text[: end(text)] for text in part] for split, part in texts.items()}
  for split, part in found.items():
    shorter = sum(a != b for a, b in zip(texts[split], part, strict=True))
    if shorter:
      notes.append(
        f'{split}: {shorter} text(s) are cut after {max_length} {choice.kind}.'
      )
  return max_length, found


def _facts(
  new,
  classes: Sequence[str],
  where: Any,
  choice: Asked,
  max_length: int,
  notes: list[str],
) -> dict[str, Any]:
  """What the training split alone gives: tokens, lengths, buckets of like number."""
  label = {split: np.asarray(x['label']) for split, x in new.rows.items()}
  rows.check_classes(where, label['train'], classes, least=1)
  rows.note_absent(label, classes, notes)
  rows.note_few(new, notes)
  texts = {split: sentences.texts_of(x['text']) for split, x in new.rows.items()}
  coder, facts = of_texts(choice, texts['train'])
  numbers = {
    split: [len(coder.encode(t)) or 1 for t in x] for split, x in texts.items()
  }
  longest = min(max_length, max(numbers['train']))
  for split, part in numbers.items():  # Of words and characters none is longer.
    if longer := sum(n > longest for n in part):
      notes.append(f'{split}: {longer} text(s) are cut after {longest} tokens.')
  length_N = np.minimum(np.sort(numbers['train']), longest)
  last = (np.arange(1, _BUCKETS + 1) * len(length_N) + _BUCKETS - 1) // _BUCKETS - 1
  return {
    **facts,
    'classes': list(classes),
    'counts': {s: rows.class_counts(x, len(classes)) for s, x in label.items()},
    'vocabulary_size': len(coder),
    'length_counts': np.bincount(length_N)[1:].tolist(),
    'lengths': np.unique(length_N[last]).tolist(),
  }


def _found(
  places: Sequence[Any],
  text: str | None,
  label: str | None,
  encoding: str,
  leave_out: Sequence[str],
  notes: list[str],
) -> tuple[list[_Text], list[str] | None]:
  """All texts, and the classes in order where they are known beforehand."""
  folder = pathlib.Path(places[0])
  listed = sorted(folder.iterdir()) if folder.is_dir() else []
  if listed and not any(p.is_dir() and p.name[0] != '.' for p in listed):
    listed = [p for p in listed if p.suffix.lower() in readers.ENDINGS]
    if listed and len(places) == 1:
      places = listed
  if not pathlib.Path(places[0]).is_dir():
    for flag, value in (('text', text), ('label', label)):
      if value is None:
        raise ConfigError(f'--{flag} is missing: name the column of the {flag}s.')
    assert text is not None and label is not None
    return _in_files(places, text, label, encoding, leave_out)
  if len(places) > 1 or text is not None or label is not None:
    raise ConfigError(
      f'{folder} is a folder of classes: it is given alone, without --text and --label.'
    )
  known = folders.find(folder, ('.txt',), 'text', leave_out)
  if known.passed:
    notes.append(f'{known.passed} file(s) passed over: not .txt.')
  return [
    _Text(
      rows.plain(_text_of(f.path, encoding)),
      known.classes[f.label],
      str(f.path),
      f.split,
    )
    for f in known.files
  ], known.classes


def _text_of(path: pathlib.Path, encoding: str) -> str:
  """Of a file, which may be empty: that is told with the other bad ones."""
  return columns.text_of(path, encoding) if path.stat().st_size else ''


def _in_files(
  places: Sequence[Any], text: str, label: str, encoding: str, leave_out: Sequence[str]
) -> tuple[list[_Text], list[str] | None]:
  split_of = readers.splits(places)
  table = readers.read(list(places), encoding)
  table.check(text=text, label=label)
  if text == label:
    raise ConfigError(f'--text and --label are both {text}: must be two columns.')
  known = table.classes.get(label)
  pairs = zip(table.column(text), table.column(label), strict=True)
  return [
    _Text(rows.plain(words), mark, table.where(row), split_of[table.shard(row)])
    for row, (words, mark) in enumerate(pairs)
    if mark not in leave_out
  ], known and [name for name in known if name not in leave_out]


def _without_bad(found: list[_Text], skip: bool, notes: list[str]) -> list[_Text]:
  bad = [t for t in found if not (t.text and t.label)]
  if bad and not skip:
    what = 'text' if bad[0].label else 'class'
    raise DataError(
      f'{bad[0].place}: has no {what}: mend it, or leave out such rows by --skip_bad.'
    )
  if bad:
    notes.append(f'{len(bad)} row(s) without text or class left out: {bad[0].place}.')
  return [t for t in found if t.text and t.label]


def _assigned(
  found: list[_Text],
  of_N: np.ndarray,
  classes: Sequence[str],
  where: Any,
  test: float,
  validation: float,
  seed: int,
  notes: list[str],
) -> np.ndarray:
  """The split of each text; what lacks is taken from training, class by class."""
  split_N = np.array([t.split or 'train' for t in found], 'U10')
  lacking = rows.lacking(split_N, test, validation, notes)
  rows.check_classes(where, of_N[split_N == 'train'], classes, least=1 + len(lacking))
  rows.cut(split_N, of_N, lacking, seed)
  for split, share in lacking.items():
    notes.append(
      f'A share of {share} of each class of training is the {split} split, by seed '
      f'{seed}.'
    )
  return split_N
