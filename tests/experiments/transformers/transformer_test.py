"""A file of pairs to a translated sentence by commands; what the Config refuses."""

import json

import pytest

import dlx
from dlx.errors import ConfigError
from experiments.transformers import transformer
from launch import call, data, train
from tests import turns

# Two words of each side, in the other order: positions and words both matter.
ANIMALS = {'dog': 'Hund', 'cat': 'Katze', 'horse': 'Pferd', 'bird': 'Vogel'}
COLOURS = {'red': 'rot', 'old': 'alt', 'big': 'dick', 'small': 'klein', 'wild': 'wild'}


def lines(repeats: int) -> str:
  """Every pair of words, so often with other numbers before them."""
  return 'english\tgerman\n' + ''.join(
    f'{n} {colour} {animal}.\t{ANIMALS[animal]} {COLOURS[colour]} {n}.\n'
    for n in range(repeats)
    for colour in COLOURS
    for animal in ANIMALS
  )


@pytest.mark.usefixtures('optimised')
@turns.seldom(2, 3)
def test_from_a_file_of_pairs_to_a_translation(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'sets'))
  (tmp_path / 'own.tsv').write_text(lines(12))
  assert data.main(['data', 'pairs', 'own.tsv']) == 0
  assert '--exp=transformer --config.dataset=own' in capsys.readouterr().out
  fields = {
    **{'dataset': 'own', 'num_steps': 150, 'batch_size': 32, 'lr': 1e-2},
    **{'num_layers': 1, 'width': 32, 'unroll': 1, 'eval_every_steps': 'none'},
  }
  flags = [f'--config.{name}={value}' for name, value in fields.items()]
  args = ['train', '--exp=transformer', '--workdir=run', *flags]
  assert train.main(args) == 0
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  assert result['metrics']['test/exact'] > 0.9
  # The words lie in the workdir: the set is not needed any more.
  monkeypatch.delenv('DLX_DATA_DIR')
  capsys.readouterr()
  run = ['call', '--workdir=run', 'translate']
  assert call.main([*run, 'source=7 wild horse.', 'beams=3']) == 0
  assert capsys.readouterr().out.strip().endswith('pferd wild 7 .')
  opened = dlx.open('run')
  wanted = ['hund rot 3 .', 'vogel klein 11 .']
  assert opened.translate(source=['3 red dog.', '11 small bird.']) == wanted
  scores = opened.score(source=['3 red dog.'] * 2, target=wanted)
  assert scores[0] > scores[1]
  # Of the whole test split, with what is right beside.
  out = ['--dataset=:test', '--out=test.jsonl', '--num=5', '--data_dir=sets']
  assert call.main([*run, *out]) == 0
  found = [json.loads(x) for x in (tmp_path / 'test.jsonl').read_text().splitlines()]
  assert len(found) == 5 and found[0]['true_target'].endswith('.')
  right = [x['true_target'].lower().replace('.', ' .') == x['target'] for x in found]
  assert sum(right) >= 4


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'num_heads': 3}, 'config.width=128 is not allowed: must be even, at least 4 and'),
    ({'width': 2, 'num_heads': 1}, 'config.width=2 is not allowed'),
    ({'remat': 'half'}, 'config.remat=half is not allowed: must be one of off, dots'),
    ({'beams': 0}, 'config.beams=0 is not allowed: must be at least 1'),
    ({'label_smoothing': 1.0}, 'config.label_smoothing=1.0 is not allowed'),
  ],
)
def test_refused(fields, message):
  with pytest.raises(ConfigError, match=message):
    transformer.Config(**fields)
