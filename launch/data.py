"""Makes a data set out of what you have; --config.dataset=NAME then trains on it.

  python -m launch.data images DIR             pictures, one folder a class; Parquet
                                               files; CIFAR-100, SVHN, STL-10, EMNIST
  python -m launch.data images DIR --keep=files           as ImageNet's: the files stay
                                               and are decoded as a run reads them
  python -m launch.data table FILE --target=Y  columns; Y is what to predict
  python -m launch.data text FILE --text=X --label=Y      sentences and their classes;
                                               or DIR, one folder a class of .txt
  python -m launch.data arrays FILE.npz        x and y, or x_train, y_train, ...
  python -m launch.data corpus FILE ...        text, by characters, words, byte pairs
                                               or a tokenizer.json
  python -m launch.data pairs FILE             sentences and their translations
  python -m launch.data graph EDGES NODES      ids; ids, features, class in the last
  python -m launch.data graphs DIR             small graphs of classes, as TUDataset's
  python -m launch.data series FILE            numbers in time, with dates or without
  python -m launch.data ls                     the sets in the data folder
  python -m launch.data show NAME              one of them; --out=FILE.png: its pictures

Columns are a .csv, .tsv, .jsonl or .parquet, or several of them with the same columns.
A set is a folder in --data_dir (or $DLX_DATA_DIR): a card, and its rows as .npy files,
or of --keep=files the names and sums of the pictures, which must stay. It is there when
it is whole. Exit status: 0; 1 where `show` finds damage; 2 bad input, one line on
stderr, nothing made.
"""

import contextlib
import functools
import pathlib
import re
import sys
from typing import Any, Callable, Iterator, Mapping

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, paths

_WORDS = {
  'images': 'DIR, or images FILE ...',
  'table': 'FILE ... --target=COLUMN',
  'text': 'FILE ... --text=COLUMN --label=COLUMN, or text DIR',
  'arrays': 'FILE.npz',
  'corpus': 'FILE ...',
  'pairs': 'FILE ...',
  'graph': 'EDGES NODES',
  'graphs': 'DIR',
  'series': 'FILE ...',
  'ls': '',
  'show': 'NAME',
}
# The flags that each reads, beside --data_dir; those that make a set read --name, too.
_READS = {
  'images': 'keep format label size fit grey test seed repeats skip_bad workers',
  'table': 'target predict categories leave_out test seed repeats encoding',
  'text': (
    'text label max_length leave_out test validation seed repeats skip_bad encoding '
    'tokens vocab_size tokenizer'
  ),
  'arrays': 'predict classes test seed repeats',
  'corpus': 'validation encoding tokens vocab_size tokenizer',
  'pairs': (
    'source target test validation seed repeats skip_bad encoding tokens vocab_size '
    'tokenizer'
  ),
  'graph': 'label leave_out test validation seed encoding',
  'graphs': 'test validation seed encoding',
  'series': 'target date period unit leave_out encoding',
  'ls': '',
  'show': 'out',
}
_EXPERIMENTS = {  # That is proposed for a set.
  'images': 'cnn',
  'tables': 'tabular',
  'sentences': 'sst2',
  'characters': 'char_gpt',
  'translation': 'transformer',
  'graphs': 'gcn',
  'series': 'forecast',
  'small_graphs': 'graph_classification',
}
_SHOWN = 32  # Pictures of `show --out`.
_CLASSES = 20  # That are told one by one of a set that was just made.


def define(values: flags.FlagValues):
  """The launcher's own flags; `dlx.data.prepare` has their defaults."""
  module: Any = {'flag_values': values, 'module_name': 'launcher'}
  path = functools.partial(paths.define, values)
  path('data_dir', None, 'Folder of data sets. Default: $DLX_DATA_DIR.')
  text = functools.partial(flags.DEFINE_string, **module)
  text('name', None, 'Of the new set. Default: that of the folder or file.')
  target = (
    'table: the column to predict; pairs: of the translations, the second; series: of '
    'the numbers, the only one.'
  )
  text('target', None, target)
  date = 'series: the column of dates; the first, where it holds them.'
  text('date', None, date)
  period = (
    'series: steps after which it repeats; by the dates, of days 7, of months 12.'
  )
  flags.DEFINE_integer('period', None, period, lower_bound=1, **module)
  text('unit', None, 'series: what is measured; the name of the column.')
  text('source', None, 'pairs: the column of the sentences; the first.')
  text('text', None, 'text: the column of the texts.')
  text('label', None, 'text, graph, images of Parquet: the column of the classes.')
  form = (
    'images: what the files are, where their names do not tell: folders, parquet, '
    'cifar100, cifar100_coarse, svhn, stl10 or emnist.'
  )
  text('format', None, form)
  length = 'text: tokens after which texts are cut; 256.'
  flags.DEFINE_integer('max_length', None, length, **module)
  flags.DEFINE_integer(
    'size',
    None,
    'images: height and width; that of all pictures, else 64; of --keep=files 224.',
    **module,
  )
  keep = (
    'images: rows of --size as arrays, or the files, of which a run decodes parts at '
    'random to train on, and the middle to evaluate; rows.'
  )
  flags.DEFINE_enum('keep', None, ['rows', 'files'], keep, **module)
  fit = 'images: crop the middle, pad with black, or stretch; crop.'
  flags.DEFINE_enum('fit', None, ['crop', 'pad', 'stretch'], fit, **module)
  flags.DEFINE_boolean('grey', None, 'images: one channel in place of three.', **module)
  skip = 'images, text: leave out what cannot be read, or has no text or class.'
  flags.DEFINE_boolean('skip_bad', None, skip, **module)
  workers = 'images: threads that decode; one a CPU.'
  flags.DEFINE_integer('workers', None, workers, lower_bound=1, **module)
  test = 'Share of the rows that test, where there is no test split; 0.2.'
  flags.DEFINE_float('test', None, test, **module)
  share = (
    'corpus: share of the text, its end, that validates; text, graph(s): share of the '
    'training rows, where there is no such split; 0.1.'
  )
  flags.DEFINE_float('validation', None, share, **module)
  tokens = (
    'What a token is: characters, words or byte pairs; corpus: characters; text, '
    'pairs: words.'
  )
  flags.DEFINE_enum('tokens', None, ['characters', 'words', 'bpe'], tokens, **module)
  most = (
    'Tokens of the vocabulary: corpus: of words 8192, of bpe 1024; text, pairs: of bpe '
    '8192.'
  )
  flags.DEFINE_integer('vocab_size', None, most, **module)
  file = (
    'corpus, text, pairs: a tokenizer.json of Hugging Face, whose tokens are taken; '
    'needs the extra tokenizers.'
  )
  path('tokenizer', None, file)
  seed = 'Seed by which the test rows are chosen; 0.'
  flags.DEFINE_integer('seed', None, seed, lower_bound=0, **module)
  repeats = (
    'Training rows that stand in another split, too: refuse the set (images, text), '
    'drop or keep them (table, images of a known set).'
  )
  flags.DEFINE_enum('repeats', None, ['refuse', 'drop', 'keep'], repeats, **module)
  predict = 'table, arrays: what the target is; by default numbers where all of it are.'
  flags.DEFINE_enum('predict', None, ['classes', 'numbers'], predict, **module)
  names = functools.partial(flags.DEFINE_list, **module)
  names('categories', None, 'table: columns of numbers or dates to take as categories.')
  left = 'table, graph, series: columns, text: classes, that are not used.'
  names('leave_out', None, left)
  names('classes', None, 'arrays: names of the classes; their numbers.')
  encoding = 'table, text, corpus, pairs, graph(s), series: of the file; utf-8.'
  text('encoding', None, encoding)
  path('out', None, 'show: a .png of some pictures.')


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  command, places = command_line.chosen(words, _WORDS)
  wanted = _WORDS[command].split()
  least = {'ls': 0, 'graph': 2}.get(command, 1)
  if len(places) < least or (len(places) > least and '...' not in wanted):
    raise ConfigError(
      f'{command} {" ".join(places)}: give {command} {_WORDS[command]}'.rstrip() + '.'
    )
  makes = command not in ('ls', 'show')
  reads = {'data_dir', *(['name'] if makes else []), *_READS[command].split()}
  given = {
    f.name: f.value
    for f in values.get_flags_for_module('launcher')
    if f.present and f.value is not None
  }
  if others := sorted(given.keys() - reads):
    raise ConfigError(
      f'--{others[0]} is not read by {command}: it reads '
      f'{", ".join("--" + name for name in sorted(reads))}.'
    )
  if command == 'table' and 'target' not in given:
    raise ConfigError('--target is missing: name the column to predict.')
  data_dir = given.pop('data_dir', None)
  if command == 'ls':
    return list_sets(data_dir)
  if command == 'show':
    return show(places[0], data_dir, given.get('out'))
  name = given.pop('name', None) or _name_of(places[0])
  with progress() as tick:
    made = _make(command, places, name, data_dir, given, tick)
  for note in made.notes:
    print(f'note: {note}', file=sys.stderr)
  print(described(made.card, classes=_CLASSES))
  if made.card.kind in _EXPERIMENTS:
    where = f' --data_dir={data_dir}' if data_dir else ''
    exp = _EXPERIMENTS[made.card.kind]
    period = made.card.facts.get('period', 1)
    if period > 1:  # A forecast sees two periods of a series, and gives one.
      where += f' --config.past={2 * period} --config.horizon={period}'
    print(
      f'python -m launch.train --exp={exp} --config.dataset={name}{where} '
      f'--workdir=runs/{name}'
    )
  return 0


def _make(
  command: str,
  places: list[str],
  name: str,
  data_dir: str | None,
  given: dict[str, Any],
  tick: Callable[[int, int], None],
):
  from dlx.data.prepare import (
    arrays,
    corpus,
    graph,
    pairs,
    picture_files,
    pictures,
    sentences,
    series,
    small_graphs,
    table,
  )

  if command == 'images':
    if given.pop('keep', 'rows') == 'rows':
      return pictures.prepare(places, name, data_dir, tick=tick, **given)
    if others := sorted({'format', 'label', 'fit'} & given.keys()):
      raise ConfigError(f'--{others[0]} is not read with --keep=files: leave it out.')
    return picture_files.prepare(places, name, data_dir, tick=tick, **given)
  if command == 'graph':
    return graph.prepare(places[0], places[1], name, data_dir, **given)
  if command == 'graphs':
    return small_graphs.prepare(places[0], name, data_dir, **given)
  if command == 'arrays':
    return arrays.prepare(places[0], name, data_dir, **given)
  of = {
    'corpus': corpus,
    'table': table,
    'text': sentences,
    'pairs': pairs,
    'series': series,
  }
  return of[command].prepare(places, name, data_dir, **given)


def _name_of(place: str) -> str:
  """A name out of that of a folder or file."""
  name = re.sub(r'[^A-Za-z0-9_.-]+', '_', pathlib.Path(place).resolve().stem)
  return name.lstrip('_.-') or 'own'


@contextlib.contextmanager
def progress(what: str = 'preparing') -> Iterator[Callable[[int, int], None]]:
  """(done, all) -> None: a bar on a terminal, else nothing."""
  if not sys.stderr.isatty():
    yield lambda done, total: None
    return
  from rich import console
  from rich import progress as bars

  with bars.Progress(console=console.Console(stderr=True), transient=True) as bar:
    task = bar.add_task(what, total=None)
    yield lambda done, total: bar.update(task, completed=done, total=total)


def list_sets(data_dir: str | None) -> int:
  """Prints a line for every set."""
  from dlx.data.formats import files
  from dlx.data.sets import cards

  files.needed_root(data_dir)
  for card in cards.every(data_dir):
    print(described(card).split('\n')[0])
  return 0


def show(name: str, data_dir: str | None, out: str | None) -> int:
  """Prints what a set is and whether its files are sound; writes pictures to `out`."""
  from dlx.data.prepare.inspect import rows_of, twins
  from dlx.data.sets import cards

  card = cards.find(name, data_dir)
  if card is None:
    known = ', '.join(card.name for card in cards.every(data_dir)) or 'none'
    raise ConfigError(f'{name} is no set of your own; there are: {known}.')
  if out is not None and card.kind != 'images':
    raise ConfigError(f'--out is not allowed: {name} holds no pictures.')
  if out is not None and not pathlib.Path(out).parent.is_dir():
    raise ConfigError(f'--out={out} is not allowed: there is no folder for it.')
  print(described(card))
  if damage := cards.damaged(card):
    print(f'DAMAGED: {damage}')
    return 1
  for line in twins(card):
    print(line)
  print(f'lies in {card.folder}; all sums of its files are right')
  if out is not None:
    from dlx.figures.images import image_grid
    from dlx.run.drawing import to_png

    data = rows_of(card, 'train', _SHOWN)
    names = [card.facts['classes'][k] for k in data['label']]
    image = data['image'] / card.facts['max_value']
    pathlib.Path(out).write_bytes(to_png(image_grid(image, names, title=name))[0])
  return 0


def described(card: Any, classes: int | None = None) -> str:
  """What a person wants to know of a set: a line, then its parts.

  Args:
    card: of the set.
    classes: the first so many are told one by one; None: all.
  """
  from dlx.data.sets.facts import num_tokens
  from dlx.data.sets.registry import KINDS

  facts = card.facts
  sizes = ', '.join(f'{split} {n}' for split, n in facts['sizes'].items())
  lines = [f'{card.name}  {KINDS[card.kind]}  {sizes}']
  for name, field in facts['fields'].items():
    lines.append(f'  {name} {field["dtype"]} {field["shape"]}')
  names = facts.get('classes', ())
  for k, name in enumerate(names[:classes]):
    counts = ', '.join(f'{split} {x[k]}' for split, x in facts['counts'].items())
    lines.append(f'  class {k} {name}: {counts}')
  if classes is not None and len(names) > classes:
    lines.append(
      f'  and {len(names) - classes} more classes: '
      f'python -m launch.data show {card.name} tells all'
    )
  if card.kind == 'images':
    row = lambda values: ', '.join(f'{x:.4f}' for x in values)
    lines.append(f'  mean {row(facts["mean"])}, deviation {row(facts["std"])}')
  elif card.kind == 'tables':
    for name, mean, std in zip(
      facts['feature_names'], facts['mean'], facts['std'], strict=True
    ):
      lines.append(f'  feature {name}: mean {mean:.6g}, deviation {std:.6g}')
    ((metric, value),) = facts['baseline'].items()
    lines.append(f'  {facts["target_name"]}: least squares has {metric} {value:.6g}')
  elif card.kind == 'sentences':
    counts = facts['length_counts']
    unit = _unit(facts, 'words')
    lines.append(f'  {facts["vocabulary_size"]} {unit}; up to {len(counts)} a text')
  elif card.kind == 'translation':
    parts = zip(
      facts['languages'], facts['vocabulary_sizes'], facts['longest'], strict=True
    )
    for language, words, longest in parts:
      unit = _unit(facts, 'words')
      lines.append(f'  {language}: {words} {unit}; up to {longest} a sentence')
  elif card.kind == 'graphs':
    lines.append(f'  {facts["num_features"]} features a node')
  elif card.kind == 'small_graphs':
    lines.append(f'  {len(facts["feature_names"])} features a node')
  elif card.kind == 'series':
    lines.append(f'  {facts["unit"]} by {facts["step"]}, period {facts["period"]}')
  else:
    lines.append(f'  {num_tokens(facts)} {_unit(facts, "characters")}')
  return '\n'.join(lines)


def _unit(facts: Mapping[str, Any], default: str) -> str:
  """What tokens are, where a card that does not say means `default`."""
  kind: str = facts.get('tokens', default)
  names = {'bpe': 'byte pairs', 'tokenizer': 'tokens of a tokenizer.json'}
  return names.get(kind, kind)


if __name__ == '__main__':
  sys.exit(main(sys.argv))
