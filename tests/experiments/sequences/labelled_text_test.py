"""Texts of six classes of one's own train in every classifier, one program a bucket."""

import importlib
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.prepare import sentences
from dlx.errors import ConfigError
from dlx.run import sharding
from dlx.run.dispatch import make_dispatch

# A question of a class begins with one of these, as in TREC.
QUESTIONS = {
  'abbreviation': ('what does it stand for', 'what is short for'),
  'description': ('why does', 'how does one explain'),
  'entity': ('what kind of animal is', 'which colour has'),
  'human': ('who was', 'which person found'),
  'location': ('where is', 'in what country lies'),
  'number': ('how many', 'when was'),
}
ABOUT = ('a cat', 'the moon', 'this old town', 'light', 'the first man on it', 'my car')
SHAPES = {'embedding': 8, 'batch_size': 16, 'embedding_dropout': 0.0, 'dropout': 0.0}
MODELS: dict[str, dict[str, Any]] = {
  'sst2': {'cell': 'gru', 'features': (8,)},
  'text_cnn': {'widths': (2, 3), 'filters': 8},
}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
  """The set `questions`."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  pairs = itertools.product(QUESTIONS.items(), ABOUT)
  rows = [
    f'{start} {what} ?\t{name}' for (name, starts), what in pairs for start in starts
  ]
  path = pathlib.Path(tmp_path, 'questions.tsv')
  path.write_text('\n'.join(['question\tclass', *rows]))
  sentences.prepare([path], 'questions', text='question', label='class')


@pytest.mark.parametrize('name', MODELS)
def test_six_classes_are_learnt_by_one_program_a_bucket(name):
  module = importlib.import_module(f'experiments.sequences.{name}')
  config = module.Config(
    dataset='questions', num_steps=150, lr=2e-2, **SHAPES, **MODELS[name]
  )
  built = module.build(config)
  names = built.functions['predict'].outputs['probabilities'].names
  assert names == tuple(QUESTIONS)
  data = built.train_data
  assert len(data.shapes) > 1  # Several buckets.
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  dispatch = make_dispatch(built, mesh)
  state, window = dispatch.init(jax.random.key(0)), dispatch.zeros()
  arrays = jax.device_put(data.load().data, dispatch.arrays)
  for step in range(config.num_steps):
    run = dispatch.run[data.shape_id(step)]
    state, window, _ = run(state, window, arrays, jnp.int32(1))
  assert [run._cache_size() for run in dispatch.run] == [1] * len(data.shapes)
  evaluation = built.evals['test']
  rows = jax.tree.map(jnp.asarray, evaluation.data.load().data)
  sums = jax.jit(evaluation.step)(state, evaluation.data.get(rows, jnp.int32(0)))
  found = evaluation.summarize(sums)
  assert np.shape(found['confusion']) == (6, 6)
  assert float(found['accuracy']) > 0.8


@pytest.mark.parametrize('name', MODELS)
def test_one_output_is_for_two_classes(name):
  module = importlib.import_module(f'experiments.sequences.{name}')
  with pytest.raises(ConfigError, match='questions has 6 classes, and one output'):
    module.build(module.Config(dataset='questions', head='sigmoid'))
