"""A function on the examples of a set: rows, truth, seeds, what does not fit."""

import json

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import dlx
from dlx.data.sets.examples import examples
from dlx.data.sources import read
from dlx.errors import ConfigError
from dlx.experiment import Experiment, Field, Function
from dlx.run import of_set
from experiments.foundations import softmax_regression

IMAGE = Field('image', (8, 8, 1), 'uint8', 16)
SEED, NUMBER = Field('seed', (), 'uint32'), Field('number', (), 'float32')
LABEL = Field('label', (), 'int32')
GRAPH = Field('graph', ('nodes',), 'int32')


class Words:
  def __len__(self):
    return 1000

  def encode(self, text):
    return [len(word) for word in text.split()]

  def decode(self, tokens):
    return ''.join(map(str, tokens))


WORDS = Field('tokens', ('length',), 'int32', vocabulary=lambda data_dir: Words())
ROW = Field('row', (10,), 'float32')
FUNCTIONS = {
  'predict': Function(
    lambda state, x: {'sum': x['image'].astype(jnp.float32).sum((1, 2, 3))},
    {'image': IMAGE},
    {'sum': NUMBER},
  ),
  'score': Function(
    lambda state, x: {'seed': x['seed'], 'sum': x['image'].mean((1, 2, 3)) + x['more']},
    {'image': IMAGE, 'seed': SEED, 'more': NUMBER},
    {'seed': SEED, 'sum': NUMBER},
  ),
  'letters': Function(
    lambda state, x: {'count': x['tokens'].sum(1).astype(jnp.float32)},
    {'tokens': WORDS},
    {'count': NUMBER},
  ),
  'age': Function(
    lambda state, x: {'age': x['features'][:, 0]}, {'features': ROW}, {'age': NUMBER}
  ),
  'draw': Function(lambda state, x: dict(x), {'label': LABEL}, {'label': LABEL}),
  'sample': Function(lambda state, x: dict(x), {'seed': SEED}, {'seed': SEED}),
  'nodes': Function(
    lambda state, x: {'twice': 2.0 * x['label']}, {'label': GRAPH}, {'twice': NUMBER}
  ),
  'small': Function(
    lambda state, x: {'sum': x['image'].astype(jnp.float32).sum((1, 2, 3))},
    {'image': IMAGE._replace(shape=(4, 4, 3), max_value=255)},
    {'sum': NUMBER},
  ),
}


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A run of functions by hand, trained on digits."""
  (tmp_path / 'config.json').write_text(
    json.dumps({'experiment': 'by_hand', 'config': {}})
  )
  found = dlx.open(tmp_path)
  made = Experiment(None, None, None, functions=FUNCTIONS)  # type: ignore[arg-type]
  config = softmax_regression.SMALL
  vars(found).update(config=config, _opened=(config, made), _used=jnp.int32(0))
  monkeypatch.setattr(of_set, 'ROWS', 8)
  return found


def of(name, split='test'):
  return read(examples(name, split).source).data


def test_every_row_with_its_truth(run):
  ticks = []
  found = of_set.of_set(
    run, 'predict', 'digits:train', {}, num=20, tick=lambda *x: ticks.append(x)
  )
  data = of('digits', 'train')
  np.testing.assert_array_equal(
    found.found['sum'], data['image'][:20].astype(float).sum((1, 2, 3))
  )
  np.testing.assert_array_equal(found.found['true_label'], data['label'][:20])
  assert list(found.found) == ['true_label', 'sum']
  assert found.called[::19] == ['digits:train:1', 'digits:train:20']
  assert ticks == [(8, 20), (16, 20), (20, 20)]
  assert found.fields['true_label'].names[7] == '7'


def test_the_set_of_the_run_and_all_of_it(run):
  found = of_set.of_set(run, 'predict', '', {})
  assert len(found.called) == 360 and found.called[0] == 'digits:test:1'


def test_seeds_are_of_the_row_and_not_of_the_batch(run, monkeypatch):
  asked = lambda num, seed: (
    of_set.of_set(run, 'score', 'digits', {'more': 2, 'seed': seed}, num=num).found
  )
  found = asked(20, 3)
  assert len(set(found['seed'].tolist())) == 20
  np.testing.assert_array_equal(asked(5, 3)['seed'], found['seed'][:5])
  monkeypatch.setattr(of_set, 'ROWS', 3)
  np.testing.assert_array_equal(asked(20, 3)['seed'], found['seed'])
  assert asked(1, 4)['seed'] != found['seed'][0]
  mean = of('digits')['image'][:20].mean((1, 2, 3))
  np.testing.assert_allclose(found['sum'], mean + 2, rtol=1e-6)


def test_texts_pass_the_vocabulary_of_the_run(run):
  found = of_set.of_set(run, 'letters', 'grammar', {}, num=10).found
  texts = [bytes(x).rstrip(b'\0').decode() for x in of('grammar')['text'][:10]]
  counts = [sum(map(len, text.split())) for text in texts]
  assert found['count'].tolist() == counts
  assert set(found['true_label'].tolist()) <= {0, 1}


def test_a_table_as_measured(run):
  found = of_set.of_set(run, 'age', 'diabetes', {}).found
  assert found['age'].min() >= 19 and len(found['age']) == 89
  np.testing.assert_array_equal(found['true_target'], of('diabetes')['target'])


def test_a_label_that_is_an_input_is_no_truth(run):
  found = of_set.of_set(run, 'draw', 'digits', {}, num=3).found
  assert found['label'].tolist() == of('digits')['label'][:3].tolist()
  assert list(found) == ['label']


def test_nodes_of_the_split(run):
  found = of_set.of_set(run, 'nodes', 'karate_club:train', {})
  data = of('karate_club')
  rows = np.flatnonzero(data['train'][0])
  assert 0 < len(rows) < 34
  label = data['label'][0][rows]
  np.testing.assert_array_equal(found.found['true_label'], label)
  np.testing.assert_array_equal(found.found['twice'], 2 * label)
  assert found.called == [f'karate_club:{n}' for n in rows]


def test_pictures_of_another_size_and_scale(run):
  found = of_set.of_set(run, 'small', 'digits', {}, num=2, resize=True).found
  image = np.round(of('digits')['image'][0, ..., 0] * (255 / 16)).astype(np.uint8)
  small = (
    Image.fromarray(image).convert('RGB').resize((4, 4), Image.Resampling.BILINEAR)
  )
  assert found['sum'][0] == np.asarray(small, float).sum()


@pytest.mark.parametrize(
  ('what', 'dataset', 'says'),
  [
    ('predict', 'diabetes', r'diabetes:test \(features .* does not give image \(image'),
    ('small', 'digits', r'up to 16\) does not give .*up to 255: .* or add --resize'),
    ('letters', 'grammar:train', 'grammar:train .* does not give tokens'),
    ('score', 'digits', 'does not give more'),
    ('sample', 'digits', 'sample reads no example: leave --dataset=digits:test out'),
    ('decode', 'digits', 'decode is no function of by_hand'),
    ('predict', 'digitz:validation', 'digitz has no split validation'),
  ],
)
def test_what_does_not_fit(run, what, dataset, says):
  with pytest.raises(ConfigError, match=says) as caught:
    of_set.of_set(run, what, dataset, {})
  assert '\n' not in str(caught.value)


def test_a_run_without_a_set(run):
  vars(run)['config'] = softmax_regression.Config.__bases__[0]()
  with pytest.raises(
    ConfigError, match='--dataset=:test is not allowed: the config of'
  ):
    of_set.of_set(run, 'predict', ':test', {})


def test_answers_come_batch_by_batch(run):
  done = []
  parts = of_set.in_parts(
    run, 'predict', 'digits', {}, num=20, tick=lambda n, total: done.append((n, total))
  )
  first = next(parts)
  assert len(first.called) == 8 and done == []
  sizes = [len(part.called) for part in parts]
  assert sizes == [8, 4] and done == [(8, 20), (16, 20), (20, 20)]
  whole = of_set.of_set(run, 'predict', 'digits', {}, num=20)
  assert whole.called[:8] == first.called and len(whole.called) == 20
  np.testing.assert_array_equal(whole.found['sum'][:8], first.found['sum'])
