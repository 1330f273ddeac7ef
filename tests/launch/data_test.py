"""launch.data: from files to a run, and one line for whatever cannot be taken."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import dlx
from dlx.data.sets import images
from launch import call, data, evaluate, train
from tests.dlx.data.text import tokenizer_files


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)


def made(capfd, *args: str) -> str:
  """What the command prints."""
  assert data.main(['data', *args, '--data_dir=data']) == 0
  return capfd.readouterr().out


def refused(capfd, *args: str) -> str:
  """The one line of a refusal; nothing is made."""
  before = sorted(os.listdir('data')) if os.path.exists('data') else []
  assert data.main(['data', *args, '--data_dir=data']) == 2
  out, err = capfd.readouterr()
  assert out == '' and err.startswith('error: ') and err.count('\n') == 1, err
  assert (sorted(os.listdir('data')) if os.path.exists('data') else []) == before
  return err


def pictures(counts=(4, 4), folder='pets'):
  for k, count in enumerate(counts):
    for i in range(count):
      path = pathlib.Path(folder, 'ab'[k], f'{i}.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (2, 2), (200 * k, i, 0)).save(path)


def trains(capfd) -> list[str]:
  """The words after the command that is proposed for a new set of 2x2 pictures."""
  pictures()
  said = made(capfd, 'images', 'pets', '--size=2')
  assert 'pets  labelled images  train 6, test 2\n' in said
  command = said.splitlines()[-1]
  assert command.startswith('python -m launch.train --exp=cnn --config.dataset=pets ')
  flags = command.split()[4:]
  config = ['--exp=softmax_regression', '--config.num_steps=2', '--workdir=run']
  assert flags[-1] == '--workdir=runs/pets'
  return ['train', *flags, *config]


def test_pictures_that_stay_files(capfd):
  pictures()
  said = made(capfd, 'images', 'pets', '--keep=files', '--size=8')
  assert 'pets  labelled images  train 6, test 2\n' in said
  assert '  image uint8 [8, 8, 3]\n' in said
  assert 'all sums of its files are right' in made(capfd, 'show', 'pets')
  config = ['--config.dataset=pets', '--config.num_steps=2', '--config.batch_size=4']
  run = ['train', '--exp=softmax_regression', '--data_dir=data', '--workdir=run']
  assert train.main([*run, *config]) == 0
  told = json.loads(pathlib.Path('run', 'result.json').read_text())
  assert told['dataset']['train']['card']['decoded'] == {'short_side': 9}
  pathlib.Path('pets', 'a', '0.png').write_bytes(b'another')
  assert data.main(['data', 'show', 'pets', '--data_dir=data']) == 1
  assert 'DAMAGED: ' in capfd.readouterr().out
  err = refused(capfd, 'images', 'pets', '--keep=files', '--name=b', '--fit=pad')
  assert '--fit is not read with --keep=files' in err


class TestImages:
  def test_the_card_says_what_is_trained(self, capfd):
    args = trains(capfd)
    for path in pathlib.Path('data/pets').glob('*/*.npy'):
      path.unlink()
    assert train.main([*args, '--describe']) == 0
    said = capfd.readouterr().out
    assert re.search(r'^head/kernel +12 x 2 ', said, re.M), said
    assert train.main(args) == 2
    assert 'image.npy: cannot be read' in capfd.readouterr().err
    assert images.images('pets').num_classes == 10  # The folder is forgotten.

  @pytest.mark.slow
  def test_trains(self, capfd):
    assert train.main(trains(capfd)) == 0
    record = json.loads(pathlib.Path('run', 'config.json').read_text())['data']
    card = record['test']['card']
    assert card['classes'] == ['a', 'b'] and card['sizes'] == {'train': 6, 'test': 2}
    # As it was recorded, the net is built; without rows nothing is scored.
    evaluated = ['evaluate', '--workdir=run', '--data_dir=other']
    os.rename('data', 'other')
    assert evaluate.main(evaluated) == 0
    capfd.readouterr()
    os.rename('other', 'away')
    assert evaluate.main(evaluated) == 2
    assert 'the folder that `python -m launch.data` made' in capfd.readouterr().err

  def test_ls_and_show(self, capfd):
    pictures((4, 4))
    made(capfd, 'images', 'pets', '--size=2', '--grey', '--repeats=keep')
    assert made(capfd, 'ls') == 'pets  labelled images  train 6, test 2\n'
    said = made(capfd, 'show', 'pets', '--out=pets.png')
    assert '  image uint8 [2, 2, 1]\n' in said and 'class 0 a: train 3, test 1' in said
    # Grey levels of (0, i, 0) and (200, i, 0), i below 4, are two or three a class.
    assert 'row(s) stand twice' in said and 'all sums of its files are right' in said
    with Image.open('pets.png') as opened:
      assert opened.width > 50

  def test_many_classes_are_told_by_show_alone(self, capfd):
    for k in range(23):
      folder = pathlib.Path('pets', f'c{k:02}')
      folder.mkdir(parents=True)
      for i in range(2):
        Image.new('L', (2, 2), 5 * k + i).save(folder / f'{i}.png')
    said = made(capfd, 'images', 'pets', '--test=0.5')
    assert 'class 19 c19: ' in said and 'class 20 ' not in said
    assert '  and 3 more classes: python -m launch.data show pets tells all\n' in said
    assert 'class 22 c22: train 1, test 1\n' in made(capfd, 'show', 'pets')
    path = pathlib.Path('data/pets/test/label.npy')
    path.write_bytes(path.read_bytes()[:-1] + b'\1')
    assert data.main(['data', 'show', 'pets', '--data_dir=data']) == 1
    assert 'DAMAGED: ' in capfd.readouterr().out
    assert 'there are: pets' in refused(capfd, 'show', 'cats')
    assert 'no folder for it' in refused(capfd, 'show', 'pets', '--out=x/y.png')

  @pytest.mark.parametrize(
    ('spoil', 'told'),
    (
      (lambda a: (a / '0.png').write_bytes(b''), 'a/0.png: is empty'),
      (lambda a: (a / '0.png').write_text('text'), 'a/0.png: is no picture'),
      (
        lambda a: (a / '0.png').write_bytes((a / '0.png').read_bytes()[:40]),
        'a/0.png: is no picture',
      ),
      (
        lambda a: [(a / f'{i}.png').unlink() for i in (1, 2, 3)],
        "class 'a' has 1 example(s), must have at least 2",
      ),
      (lambda a: [p.unlink() for p in a.iterdir()], 'pets/a: holds no picture'),
      (lambda a: a.rename(a.with_name('B')), 'classes differ by case alone: B, b'),
      (lambda a: a.rename(a.parents[1] / 'away'), 'expected two classes'),
      (lambda a: (a / 'x.png').symlink_to(a / 'x.png'), 'a/x.png: is a link'),
      (lambda a: (a / 'x').symlink_to(a.parent), 'a/x: is a link'),
      (lambda a: (a.parent / 'c').symlink_to('/nowhere'), 'pets/c: is a link'),
      (
        lambda a: (a / '1.png').write_bytes((a / '0.png').read_bytes()),
        'stand in another split',
      ),
    ),
  )
  def test_what_cannot_be_taken(self, capfd, spoil, told):
    pictures()
    spoil(pathlib.Path('pets/a'))
    if told.startswith('stand'):  # One of the two is in the test split by this seed.
      seeds = [refused_or_made(capfd, f'--seed={s}', f'--name=s{s}') for s in range(8)]
      assert any(told in err for err in seeds)
    else:
      assert told in refused(capfd, 'images', 'pets')

  def test_truncated_jpeg_and_webp(self, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ('x.jpg', 'x.webp'):
      pictures(folder=name)
      path = pathlib.Path(name, 'a', name)
      Image.fromarray(noise).save(path)
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
      assert f'a/{name}: is no picture' in refused(capfd, 'images', name)

  def test_folders_that_are_none(self, capfd):
    assert 'nowhere: is no folder' in refused(capfd, 'images', 'nowhere')
    pathlib.Path('flat').mkdir()
    Image.new('RGB', (2, 2)).save('flat/0.png')
    assert 'holds no folders' in refused(capfd, 'images', 'flat')
    pictures(folder='some/train')
    pictures(folder='some/training')
    assert 'two folders of one split' in refused(capfd, 'images', 'some')
    pictures(folder='more/train')
    pictures((1, 1), folder='more/test')
    os.rename('more/test/a', 'more/test/z')
    assert "class 'z' is not among those" in refused(capfd, 'images', 'more')


class TestOthers:
  """What is asked of each kind stands in tests/dlx/data/prepare."""

  def test_a_table(self, capfd):
    text = 'id,a,y\n' + ''.join(f'{i},{i * i},{2 * i * i}\n' for i in range(10))
    pathlib.Path('my houses.csv').write_text(text)
    said = made(capfd, 'table', 'my houses.csv', '--target=y', '--repeats=refuse')
    assert said.startswith('my_houses  a table  train 8, test 2\n')
    assert '  feature a: mean ' in said and '  y: least squares has rmse ' in said
    assert '--exp=tabular --config.dataset=my_houses ' in said
    args = ['train', '--exp=house_prices', '--config.dataset=my_houses']
    assert train.main([*args, '--data_dir=data', '--describe']) == 0
    said = capfd.readouterr().out
    assert re.search(r'^hidden_0/kernel +1 x 64 ', said, re.M), said
    pathlib.Path('my houses.csv').write_text(text + '1,2\n')
    err = refused(capfd, 'table', 'my houses.csv', '--target=y', '--name=other')
    assert 'my houses.csv: line 12: has 2 cells' in err

  def test_a_table_of_classes(self, capfd):
    text = 'a,y\n' + ''.join(f'{i * i},{"ny"[i % 2]}\n' for i in range(10))
    pathlib.Path('own.tsv').write_text(text.replace(',', '\t'))
    said = made(capfd, 'table', 'own.tsv', '--target=y')
    assert 'class 1 y: train 4, test 1' in said
    assert '--exp=tabular --config.dataset=own ' in said
    args = ['--exp=house_prices', '--config.dataset=own', '--data_dir=data']
    assert train.main(['train', *args]) == 2
    assert 'it has classes' in capfd.readouterr().err

  def test_arrays(self, capfd):
    np.savez('own.npz', x=np.arange(40, dtype=np.uint8).reshape(10, 2, 2), y=[0, 1] * 5)
    said = made(capfd, 'arrays', 'own.npz', '--classes=cat,dog')
    assert 'class 0 cat: train 4, test 1' in said and '--exp=cnn' in said

  def test_a_corpus(self, capfd):
    for name in 'ab':
      pathlib.Path(f'{name}.txt').write_text(f'{name}-' * 1000)
    said = made(capfd, 'corpus', 'a.txt', 'b.txt', '--name=own', '--validation=0.2')
    assert said.startswith('own  a text  train 3201, validation 800\n')
    assert '4 characters' in said
    args = ['train', '--exp=char_gpt', '--config.dataset=own', '--data_dir=data']
    small = ['--config.num_layers=1', '--config.width=16', '--config.context=16']
    assert train.main([*args, *small, '--describe']) == 0
    assert re.search(r'^token/embedding +4 x 16 ', capfd.readouterr().out, re.M)
    assert 'all sums of its files are right' in made(capfd, 'show', 'own')
    assert '--out is not allowed' in refused(capfd, 'show', 'own', '--out=x.png')

  def test_byte_pairs_from_text_to_text(self, capfd):
    pathlib.Path('a.txt').write_text('To be, or not to be: caf\u00e9. ' * 300)
    flags = ['--name=own', '--tokens=bpe', '--vocab_size=270']
    said = made(capfd, 'corpus', 'a.txt', *flags)
    assert '  270 byte pairs\n' in said and '--exp=char_gpt' in said
    args = ['train', '--exp=char_gpt', '--config.dataset=own', '--data_dir=data']
    small = ['--config.num_layers=1', '--config.width=16', '--config.context=16']
    small += ['--config.num_steps=2', '--config.sample_length=9', '--workdir=run']
    assert train.main([*args, *small]) == 0
    assert 'validation/bits_per_byte' in capfd.readouterr().out
    shutil.rmtree('data')
    words = ['call', '--workdir=run', 'generate', 'prompt=to caf\u00e9', 'num_tokens=9']
    assert call.main([*words, 'temperature=0']) == 0
    assert capfd.readouterr().out.strip()
    assert call.main(['call', '--workdir=run', 'score', 'tokens=not to be']) == 0
    assert 'log_likelihood' in capfd.readouterr().out

  def test_a_tokenizer_file_goes_with_the_run(self, capfd):
    path = pathlib.Path('tokenizer.json')
    path.write_bytes(tokenizer_files.characters('so it\u00e9abc!.'))
    rows = [(f'so {y} is it{"!" * i}', y) for y in 'abc' for i in range(6)]
    lines = ''.join(f'{x}\t{y}\n' for x, y in rows)
    pathlib.Path('own.tsv').write_text('x\ty\n' + lines)
    words = ['text', 'own.tsv', '--text=x', '--label=y', f'--tokenizer={path}']
    said = made(capfd, *words)
    assert '  14 tokens of a tokenizer.json; up to ' in said
    args = ['--exp=text_cnn', '--config.dataset=own', '--data_dir=data']
    small = ['--config.embedding=4', '--config.filters=2', '--config.widths=2']
    small += ['--config.num_steps=2', '--config.bucket_lengths=16', '--workdir=run']
    assert train.main(['train', *args, *small]) == 0
    shutil.rmtree('data')
    path.unlink()
    capfd.readouterr()
    # A process of its own: all it has is the run.
    command = [sys.executable, '-m', 'launch.call', '--workdir=run', 'predict']
    texts = ['tokens=so caf\u00e9 it is!']
    done = subprocess.run([*command, *texts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search('^0 +[abc] +0[.]', done.stdout, re.M), done.stdout
    # Where the library is missing, that is one line.
    hidden = 'import sys; sys.modules["tokenizers"] = None; from launch import call; '
    hidden += 'sys.exit(call.main(["call", *sys.argv[1:]]))'
    command = [sys.executable, '-c', hidden, *command[3:], *texts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
    assert "pip install -c constraints.txt -e '.[tokenizers]'" in done.stderr

  def test_flags_of_tokens(self, capfd):
    pathlib.Path('a.txt').write_text('ab ' * 999)
    assert '--tokens=words' in refused(capfd, 'corpus', 'a.txt', '--vocab_size=300')
    assert 'vocab_size=9 ' in refused(
      capfd, 'corpus', 'a.txt', '--vocab_size=9', '--tokens=bpe'
    )
    assert 'a.txt: is no tokenizer.json' in refused(
      capfd, 'corpus', 'a.txt', '--tokenizer=a.txt'
    )
    assert '--tokens=words is not allowed with --tokenizer' in refused(
      capfd, 'corpus', 'a.txt', '--tokenizer=a.txt', '--tokens=words'
    )


class TestText:
  """What is asked of it stands in tests/dlx/data/prepare/sentences_test.py."""

  def made(self, capfd) -> list[str]:
    """Flags of a small run on sentences of three classes."""
    rows = [(f'so {y} it is number {i}!', y) for y in 'abc' for i in range(6)]
    lines = ''.join(f'{x}\t{y}\n' for x, y in rows)
    pathlib.Path('own.tsv').write_text('sentence\tmood\n' + lines)
    said = made(capfd, 'text', 'own.tsv', '--text=sentence', '--label=mood')
    assert said.startswith('own  labelled sentences  train 13, validation 1, test 4\n')
    assert '  class 2 c: train ' in said and 'words; up to 7 a text\n' in said
    command = said.splitlines()[-1].split()
    assert command[:4] == ['python', '-m', 'launch.train', '--exp=sst2']
    small = ['--config.embedding=4', '--config.features=4', '--config.num_steps=2']
    small += ['--config.eval_every_steps=2', '--workdir=run']
    return ['train', *command[3:], *small]

  @pytest.mark.parametrize(
    ('exp', 'of_last'),
    (('sst2', 'head'), ('sst2_tbptt', 'gru_head'), ('text_cnn', 'head')),
  )
  def test_the_card_says_what_is_trained(self, capfd, exp, of_last):
    args = self.made(capfd)
    args[1] = f'--exp={exp}'
    if exp == 'text_cnn':
      args = [x.replace('features', 'filters') for x in args] + ['--config.widths=2']
    for path in pathlib.Path('data/own').glob('*/*.npy'):
      path.unlink()
    assert train.main([*args, '--describe']) == 0
    said = capfd.readouterr().out
    assert re.search(rf'^{of_last}/kernel +4 x 3 ', said, re.M), said

  @pytest.mark.slow
  def test_from_a_table_to_a_call_from_elsewhere(self, capfd):
    assert train.main(self.made(capfd)) == 0
    os.rename('data', 'away')
    os.rename('run', 'moved')
    capfd.readouterr()
    args = ['--workdir=moved', 'predict', 'tokens=So, b it is!']
    assert call.main(['call', *args]) == 0
    assert re.search('^0 +[abc] +0[.]', capfd.readouterr().out, re.M)
    assert evaluate.main(['evaluate', '--workdir=moved', '--data_dir=away']) == 0

  def test_show_and_words_that_are_wrong(self, capfd):
    self.made(capfd)
    said = made(capfd, 'show', 'own')
    assert '  0 training row(s) stand in another split' in said
    args = ('text', 'own.tsv', '--name=other')
    assert '--text is missing' in refused(capfd, *args)
    assert '--size is not read by text' in refused(capfd, *args, '--size=3')
    wrong = refused(capfd, *args, '--text=sentence', '--label=y')
    assert '--label=y is not allowed: own.tsv has the columns sentence, mood' in wrong


def test_a_graph(capfd):
  pathlib.Path('edges.csv').write_text('a,b\n' + 'p0,q0\nq0,p1\n')
  nodes = ''.join(f'{y}{i},{i},{y}\n' for y in 'pq' for i in range(5))
  pathlib.Path('nodes.csv').write_text('id,x,y\n' + nodes)
  said = made(capfd, 'graph', 'edges.csv', 'nodes.csv', '--name=own')
  assert said.startswith('own  a graph  train 1\n') and '  1 features a node\n' in said
  assert re.search('class 1 q: train [34], validation [01], test 1', said)
  command = said.splitlines()[-1].split()
  assert command[3] == '--exp=gcn'
  assert train.main(['train', *command[3:], '--describe']) == 0
  assert re.search(r'^kernel_0 +1 x 16 ', capfd.readouterr().out, re.M)
  said = made(capfd, 'show', 'own')
  assert 'all sums of its files are right' in said and 'stand twice' not in said
  assert '--out is not allowed' in refused(capfd, 'show', 'own', '--out=x.png')
  assert 'give graph EDGES NODES.' in refused(capfd, 'graph', 'edges.csv')


def test_small_graphs(capfd):
  folder = pathlib.Path('mine')
  folder.mkdir()
  edges = [f'{3 * g + i},{3 * g + i + 1}' for g in range(12) for i in (1, 2)]
  edges += [f'{3 * g + 1},{3 * g + 3}' for g in range(0, 12, 2)]
  for end, lines in {
    'A': edges,
    'graph_indicator': [str(g + 1) for g in range(12) for _ in range(3)],
    'graph_labels': ['ab'[g % 2] for g in range(12)],
    'node_attributes': [f'{i},{i * i}' for i in range(36)],
  }.items():
    (folder / f'X_{end}.txt').write_text('\n'.join(lines) + '\n')
  said = made(capfd, 'graphs', 'mine', '--name=own')
  assert said.startswith(
    'own  small graphs of classes  train 9, validation 1, test 2\n'
  )
  assert '  2 features a node\n' in said
  command = said.splitlines()[-1].split()
  assert command[3] == '--exp=graph_classification'
  small = ['num_steps=2', 'features=4', 'depth=1', 'eval_every_steps=2']
  small = [f'--config.{x}' for x in (*small, 'batch_size=4')]
  assert train.main(['train', *command[3:], *small]) == 0
  os.rename('data', 'away')  # The run knows its set, without the data.
  capfd.readouterr()
  run = dlx.open('runs/own')
  graph = {'nodes': np.ones(3, np.int32), 'edges': np.array([[0, 1], [1, 2]])}
  found = run.predict(**graph, features=np.ones((3, 2), np.float32))
  assert np.shape(found) == (2,)
  os.rename('away', 'data')
  assert 'stand twice' in made(capfd, 'show', 'own')
  assert '--label is not read by graphs' in refused(
    capfd, 'graphs', 'mine', '--name=other', '--label=x'
  )
  wrong = [*command[3:], '--config.nodes=9', '--workdir=runs/other']
  assert train.main(['train', *wrong]) == 2
  assert 'nodes=9 is not allowed' in capfd.readouterr().err


def test_a_series(capfd):
  rows = ''.join(f'2024-01-{i + 1:02},{(i * 7) % 5 + i}\n' for i in range(30))
  pathlib.Path('sales.csv').write_text('day,sold\n' + rows)
  said = made(capfd, 'series', 'sales.csv', '--unit=pieces')
  assert said.startswith('sales  a series in time  train 30\n')
  assert '  pieces by day, period 7\n' in said
  command = said.splitlines()[-1].split()
  assert command[3] == '--exp=forecast' and '--config.past=14' in command
  small = [f'--config.{x}' for x in ('num_steps=2', 'features=4', 'past=7')]
  small = [*small, '--config.horizon=2', '--config.eval_every_steps=2']
  assert train.main(['train', *command[3:], *small]) == 0
  # The run knows its series, without the data.
  os.rename('data', 'away')
  capfd.readouterr()
  past = ','.join(map(str, range(7)))
  asked = ['call', '--workdir=runs/sales', 'forecast', f'past={past}']
  assert call.main(asked) == 0
  assert 'forecast' in capfd.readouterr().out
  os.rename('away', 'data')
  assert 'stand twice' not in made(capfd, 'show', 'sales')
  wrong = refused(capfd, 'series', 'sales.csv', '--name=other', '--target=day')
  assert "line 2, column 'day': '2024-01-01' is no number" in wrong


def test_pairs(capfd):
  lines = ''.join(f'a {i},ein {i}\n' for i in range(10))
  pathlib.Path('own.csv').write_text('en,de\n' + lines)
  said = made(capfd, 'pairs', 'own.csv')
  assert said.startswith('own  pairs of sentences in two languages  train 7, valid')
  assert '  de: 10 words; up to 2 a sentence\n' in said and '--exp=transformer' in said
  assert '  0 training row(s) stand in another' in made(capfd, 'show', 'own')


def refused_or_made(capfd, *args: str) -> str:
  data.main(['data', 'images', 'pets', '--data_dir=data', *args])
  return capfd.readouterr().err


class TestCommand:
  @pytest.mark.parametrize(
    ('args', 'told'),
    (
      ((), 'words are missing: the first word must be one of images, table'),
      (('image', 'x'), "'image' is not allowed"),
      (('images',), 'give images DIR, or images FILE ...'),
      (('images', 'a', 'b'), 'b: give one folder of pictures'),
      (('images', 'a', '--format=png'), '--format=png is not allowed: must be one of'),
      (('arrays', 'a', 'b'), 'give arrays FILE.npz.'),
      (('table', 'x.csv'), '--target is missing'),
      (
        ('images', 'x', '--target=y'),
        '--target is not read by images: it reads --data',
      ),
      (('ls', '--name=x'), '--name is not read by ls'),
      (('images', 'x', '--fit=no'), 'flag --fit=no'),
      (('images', 'x', '--size=big'), 'flag --size=big: must be a whole number.'),
      (('images', 'x', '--test=much'), 'flag --test=much: must be a number.'),
    ),
  )
  def test_wrong_words(self, capfd, args, told):
    assert told in refused(capfd, *args)

  def test_no_data_folder(self, capfd):
    pictures()
    for args in (('images', 'pets'), ('ls',)):
      assert data.main(['data', *args]) == 2
      assert '--data_dir is missing' in capfd.readouterr().err

  def test_a_file_is_no_data_folder(self, capfd):
    pictures()
    pathlib.Path('data').touch()
    assert data.main(['data', 'images', 'pets', '--data_dir=data']) == 2
    said = capfd.readouterr().err
    assert said == 'error: --data_dir=data is not allowed: is a file, not a folder.\n'

  @pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
  def test_no_permission(self, capfd):
    pictures()
    pathlib.Path('data').mkdir(mode=0o500)
    assert 'permission denied' in refused(capfd, 'images', 'pets')

  def test_a_full_disk(self, capfd, monkeypatch):
    pictures()

    def full(*args, **kwargs):
      raise OSError(28, 'No space left on device', 'data/x')

    monkeypatch.setattr(np.lib.format, 'open_memmap', full)
    assert 'data/x: the disk is full' in refused(capfd, 'images', 'pets')
