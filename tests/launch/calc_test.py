"""launch.calc: numbers known by heart, the table of an experiment, one-line errors."""

import json

import pytest

from launch import calc, plan


def told(capsys, *words) -> dict:
  """The JSON that the launcher prints."""
  assert calc.main(['calc', *words, '--json']) == 0
  return json.loads(capsys.readouterr().out)


def test_a_convolution(capsys):
  words = '--input=32x32x3 --kernel=5 --stride=1 --padding=2 --features=10'.split()
  (layer,) = told(capsys, 'conv', *words)['layers']
  assert layer['output'] == [32, 32, 10]
  assert (layer['weights'], layer['biases'], layer['parameters']) == (750, 10, 760)
  assert layer['flops_with_padding'] == 1_536_000
  assert layer['reach'] == [{'size': 5, 'stride': 1, 'offset': -2}] * 2
  assert calc.main(['calc', 'conv', *words]) == 0
  out = capsys.readouterr().out
  assert '32x32x10   5/1@-2' in out and '760' in out


def test_a_dense_layer_and_its_alternative(capsys):
  found = told(capsys, 'dense', '--input=224x224x3', '--units=1000')
  assert found['inputs'] == 150_528
  dense, conv = found['layers']
  assert (dense['weights'], dense['biases']) == (150_528_000, 1000)
  assert conv['parameters'] == 28_000 and conv['output'] == [224, 224, 1000]
  assert 'total' not in found
  calc.main(['calc', 'dense', '--input=224x224x3', '--units=1000'])
  assert '150,528,000' in capsys.readouterr().out


def test_a_pool(capsys):
  (layer,) = told(capsys, 'pool', '--input=28x28x6', '--kernel=2')['layers']
  assert layer['output'] == [14, 14, 6] and layer['parameters'] == 0


def test_lenet_as_a_stack(capsys):
  layers = 'conv:5,features=6 pool:2 conv:5,features=16 pool:2 dense:120 dense:84'
  found = told(capsys, 'stack', '--input=32x32x1', *layers.split(), 'dense:10')
  assert found['total']['parameters'] == 61_706  # LeNet-5 with dense connections.
  assert found['layers'][3]['reach'][0] == {'size': 16, 'stride': 4, 'offset': 0}


def test_an_experiment(capsys):
  found = told(capsys, '--exp=cnn', '--config.dense=16', '--batch_size=2')
  assert found['function'] == 'predict' and found['input'] == {'image': [2, 8, 8, 1]}
  rows = {row['name']: row for row in found['rows']}
  assert rows['hidden']['parameters'] == 2 * 2 * 64 * 16 + 16
  assert rows['hidden']['reach'] == {'height': None, 'width': None}
  assert rows['conv_1']['reach']['width'] == {'size': 8, 'stride': 2, 'offset': -3}
  sums = {k: sum(row[k] for row in found['rows']) for k in found['total']}
  assert found['total'] == sums
  calc.main(['calc', '--exp=cnn', '--config.dense=16', '--batch_size=2'])
  out = capsys.readouterr().out
  assert f'{sums["flops"]:,}' in out and '8/2@-3' in out and '…' not in out


def test_dtypes_are_those_of_the_run(capsys):
  found = told(capsys, '--exp=softmax_regression', '--config.compute_dtype=float64')
  assert {row['dtype'] for row in found['rows']} == {'float64'}


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['conv', '--kernel=3', '--features=2'], '--input is missing'),
    (['conv', '--input=8x8x3', '--kernel=3'], 'features is missing'),
    (['pool', '--input=8x8x3', '--kernel=2', '--features=3'], 'not read by pool'),
    (['dense', '--input=8'], '--units is missing'),
    (['pool', '--input=8x8', '--kernel=2'], 'must be height x width x channels'),
    (['stack', '--input=8x8x3'], 'name its layers'),
    (['stack', '--input=8x8x3', 'cnov:3'], 'no kind of layer'),
    (['conv', 'pool:2', '--input=8x8x3'], 'belongs to no flag'),
    (['cnov'], 'belongs to no flag'),
    ([], '--exp is missing'),
    (['--exp=cnn', '--function=sample'], 'must be one of predict'),
    (['--exp=sst2', '--sizes=length'], 'must be NAME=SIZE'),
    (['--exp=sst2', '--sizes=width=3'], 'leave open is length'),
  ],
)
def test_one_line_for_what_cannot_be(words, message, capsys):
  assert calc.main(['calc', *words]) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.count('\n') == 1 and message in err, err


@pytest.mark.slow  # Compiles for a TPU.
@pytest.mark.parametrize('name', ['softmax_regression', 'cnn'])
def test_a_training_step_is_what_the_plan_counts(name, capsys, tmp_path):
  found = told(capsys, f'--exp={name}')['train_step_flops']
  out = tmp_path / 'plan.json'
  assert plan.main(['plan', f'--exp={name}', '--topology=v5e:2x2', f'--out={out}']) == 0
  assert json.loads(out.read_text())['flops_per_step'] == found
