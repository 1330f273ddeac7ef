"""Pairs of sentences in two languages, two columns of a file, as a set."""

import os
from typing import Any, Sequence

import numpy as np

from dlx.data.batches.buckets import lengths_of_least_padding
from dlx.data.prepare import readers, rows
from dlx.data.prepare.draft import Made, check_name, draft, made_of
from dlx.data.prepare.tokens import Asked, asked, of_texts
from dlx.data.sets import cards, sentences
from dlx.data.text import vocabulary
from dlx.errors import ConfigError, DataError

_WIDEST = 1 << 12  # Bytes of a sentence: every row takes those of the longest.
_BUCKETS = 4  # Batches of so many lengths at most; each is a program to compile.
_WORTH = 0.75  # Share of the tokens of rows of one length that they may still take.


def prepare(
  places: Sequence[Any],
  name: str,
  data_dir: Any = None,
  *,
  source: str | None = None,
  target: str | None = None,
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
  """Makes a set of `source` uint8 [S] and `target` uint8 [T], UTF-8 with zeros after.

  Args:
    places: files of the same columns (.csv, .tsv, .jsonl, .parquet); train, validation
      and test by the words in their names, else split here.
    name: of the new set.
    data_dir: folder of data sets; None: $DLX_DATA_DIR.
    source: column of the sentences; None: the first.
    target: column of their translations; None: the second.
    test: share that tests, where there is no such split.
    validation: share of what is left that validates, likewise.
    seed: by which those are chosen.
    repeats: training pairs whose source is also in another split: refuse, drop or keep.
    skip_bad: leave out rows that lack one of the two, in place of refusing the file.
    encoding: of the files.
    tokens: what a model reads: words and marks, characters, or byte pairs (bpe), which
      are learnt from the training pairs of both sides and stand in the card. None:
      words, unless there is a `tokenizer`.
    vocab_size: of byte pairs, tokens at most; None: 8192. Of words a run chooses.
    tokenizer: path of a tokenizer.json, whose tokens are taken, for both sides.

  Raises:
    ConfigError: an argument that is not allowed.
    DataError: a file, line or column that cannot be taken; names it.
  """
  rows.check_share(test)
  rows.check_share(validation, 'validation')
  rows.check_choices(repeats=repeats)
  choice = asked(tokens, vocab_size, tokenizer, default='words')
  if vocab_size is not None and choice.kind != 'bpe':
    raise ConfigError(
      f'--vocab_size is not allowed with --tokens={choice.kind}: a run chooses by '
      '--config.num_words; or add --tokens=bpe.'
    )
  check_name(name, data_dir)
  notes: list[str] = []
  split_of = readers.splits(places)
  table = readers.read(list(places), encoding)
  if len(table.names) < 2:
    raise DataError(f'{table.path}: must have two columns, has {table.names[0]}.')
  sides = {'source': source or table.names[0], 'target': target or table.names[1]}
  table.check(**sides)
  if len(set(sides.values())) < 2:
    raise ConfigError(
      f'--source and --target are both {sides["source"]}: must be two columns.'
    )
  texts = {
    side: [rows.plain(cell) for cell in table.column(column)]
    for side, column in sides.items()
  }
  kept = []
  for row in range(len(table.cells)):
    for side, column in sides.items():
      size = len(texts[side][row].encode())
      if size > _WIDEST or not (size or skip_bad):
        told = f'has {size} bytes: must have 1 to {_WIDEST}: mend it or leave it out'
        raise table.wrong(row, column, told)
    if texts['source'][row] and texts['target'][row]:
      kept.append(row)
  if lost := len(table.cells) - len(kept):
    notes.append(f'{lost} row(s) that lack a sentence left out.')
  split_N = np.array([split_of[table.shard(row)] or 'train' for row in kept], 'U10')
  shares = rows.lacking(split_N, test, validation, notes)
  if (split_N == 'train').sum() < 3:
    raise DataError(f'{places[0]}: {(split_N == "train").sum()} pairs are too few.')
  rows.cut(split_N, np.zeros(len(kept), np.int32), shares, seed)
  at = {split: np.array(kept)[split_N == split] for split in cards.SPLITS}
  with draft(name, data_dir) as new:
    for side, all_texts in texts.items():
      width = max(len(all_texts[row].encode()) for row in kept)
      for split, index in at.items():
        part = [all_texts[row] for row in index]
        new.add(split, **{side: sentences.as_bytes(part, width)})
    place_of = lambda split, row: table.where(int(at[split][row]))
    rows.settle_repeats(new, repeats, place_of, notes)
    rows.note_few(new, notes)
    train = {k: sentences.texts_of(x) for k, x in new.rows['train'].items()}
    facts = {'languages': list(sides.values()), **_facts(train, choice)}
    made = {
      'by': 'pairs',
      'source': [os.path.abspath(x) for x in places],
      **{'columns': sides, 'test': test, 'validation': validation, 'seed': seed},
      **{'repeats': repeats, 'encoding': encoding, 'notes': notes},
      **choice.made,
    }
    new.finish('translation', facts, made)
  return made_of(name, data_dir, notes)


def _facts(train: dict[str, list[str]], choice: Asked) -> dict[str, Any]:
  """What the card says of the tokens of training sentences, by side and of pairs."""
  if choice.kind in ('words', 'characters'):
    form = choice.marks, choice.characters
    sizes = [len(vocabulary.build(x, 1, *form)) for x in train.values()]
    count = lambda text: len(vocabulary.tokenise(text, *form))
    facts = {} if choice.kind == 'words' else {'tokens': choice.kind}
  else:
    coder, facts = of_texts(choice, [x for part in train.values() for x in part])
    sizes = [len(coder)] * len(train)
    count = lambda text: len(coder.encode(text))
  source_N, target_N = (np.array([*map(count, part)]) for part in train.values())
  # Of the longer side; the end of a target is one more.
  length_N = np.maximum(source_N, target_N + 1)
  counts = np.bincount(length_N)[1:].tolist()
  lengths = np.array(lengths_of_least_padding(counts, _BUCKETS))
  filled = lengths[np.searchsorted(lengths, length_N)].mean()
  return {
    **facts,
    'vocabulary_sizes': sizes,
    'longest': [max(1, int(n.max())) for n in (source_N, target_N)],
    'length_counts': counts,
    'bucket_lengths': lengths.tolist() if filled < _WORTH * lengths[-1] else [],
  }
