"""The suites `call`, `data` and `sweep`: what they run. No time is asserted."""

import pickle

import numpy as np
import pytest

from dlx.data.sets import images
from dlx.errors import ConfigError
from dlx.run.loop import fit
from experiments.foundations import softmax_regression
from launch.benchmarks import answering, reading, sweeping


def test_pillow_alone_makes_the_pixels_of_the_set(tmp_path, monkeypatch):
  from dlx.data.prepare import pictures

  reading.write_pictures(tmp_path / 'pictures', 9)
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  pictures.prepare(tmp_path / 'pictures', 'own', size=reading.SIZE, test=0.34)
  data = images.images('own')
  ours = np.concatenate([s.read(None).data['image'] for s in (data.train, data.test)])
  alone = reading.pillow_alone(tmp_path / 'pictures', 2)
  key = lambda x: x.tobytes()
  assert sorted(map(key, ours)) == sorted(map(key, alone))


def test_a_small_turn_of_every_side(tmp_path):
  told = []
  row = reading.measure(30, 3, 1, say=told.append)
  assert row['prepare_ratio'] == row['prepare_s'][0] / row['pillow_s'][0]
  assert all(rate > 0 for found in row['rates'].values() for rate in found)
  without = reading.missing()
  sides = {'plain loop', 'dlx, threads', 'dlx, 2 workers'}
  sides |= {reading.TORCH, reading.DATASETS} - {x.split(' is left')[0] for x in without}
  assert set(row['rates']) == sides
  assert told[0].startswith('prepare: ') and told[1 : 1 + len(without)] == without
  assert [line.split(': ')[0] for line in told[1 + len(without) :]] == [*row['rates']]
  assert told[1 + len(without)].endswith(' 1.00 of the plain loop')


def test_a_library_that_is_missing_is_a_line(monkeypatch):
  monkeypatch.setattr(reading, '_has', lambda library: library != 'datasets')
  assert reading.missing() == [
    'Hugging Face datasets is left out: datasets is not installed (pip install '
    'datasets).'
  ]


def test_examples_are_mapped_where_they_are_read(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
  label = np.arange(5, dtype=np.int32)
  paths = {'image': str(tmp_path / 'image.npy'), 'label': str(tmp_path / 'label.npy')}
  np.save(paths['image'], image)
  np.save(paths['label'], label)
  examples = reading.Examples(paths)
  np.testing.assert_array_equal(examples[3]['image'], image[3], strict=True)
  pickled = pickle.dumps(examples)
  assert len(pickled) < 500 and len(pickle.loads(pickled)) == 5
  assert pickle.loads(pickled)[2]['label'] == 2


def test_answers_of_a_run(tmp_path):
  config = softmax_regression.SMALL
  fit(softmax_regression.build(config), config, tmp_path)
  found = answering.ask(tmp_path, {}, calls=2)
  assert 0 < found['python_s'] < found['opened_s'] < found['first_answer_s']
  assert found['first_answer_cpu_s'] > 0
  assert set(found['warm_ms']) == {str(n) for n in answering.ROWS}
  assert all(ms > 0 for ms in found['warm_ms'].values())
  with pytest.raises(ConfigError, match='failed: .*holds no run'):
    answering.ask(tmp_path / 'none', {})


def test_a_small_sweep_together_and_alone():
  told = []
  fields = {'num_rates': 2, 'lowest': 1e-3, 'highest': 1e-2, 'seeds': 2, 'num_steps': 4}
  row = sweeping.measure(fields, say=told.append)
  assert (row['runs'], row['diverged']) == (4, 0)
  assert row['speedup'] == row['alone_s'] / row['together_s'] and len(told) == 4
  # Float32 through four steps of Adam.
  assert row['differences']['test/loss']['largest'] < 1e-3
