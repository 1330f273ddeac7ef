"""launch.plan of sets of your own: their cards are enough, no row need be there."""

import contextvars
import importlib.util
import json
import os
import pathlib

from absl.testing import absltest
import jax
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image
import pytest

from dlx.data.prepare import pictures, table
from dlx.models.tabular import embedding_width
from launch import plan


@pytest.fixture
def bytes_by_card(tmp_path, monkeypatch):
  """Bytes by kind of a plan of the set `own`, of which the card alone is left."""
  if importlib.util.find_spec('libtpu') is None:
    pytest.skip("nothing is compiled for TPUs: pip install 'dlx[tpu]'")
  cache = jax.config.jax_enable_compilation_cache

  def planned(name: str) -> dict[str, int]:
    for path in (tmp_path / 'own').glob('*/*.npy'):
      path.unlink()
    args = [f'--exp={name}', '--config.dataset=own', f'--data_dir={tmp_path}']
    # The folder is known within this context alone.
    run = contextvars.copy_context().run
    out = ['--topology=v5e:2x2', f'--out={tmp_path}/plan.json']
    assert run(plan.main, ['plan', *args, *out]) == 0
    found = json.loads((tmp_path / 'plan.json').read_text())
    assert found['fits']
    return found['bytes_by_kind']

  with absltest.mock.patch.dict(os.environ):
    yield planned
  compilation_cache.reset_cache()
  jax.config.update('jax_enable_compilation_cache', cache)


def test_a_table(tmp_path, bytes_by_card):
  rows = (f'{"ab"[i % 2]},{"" if i < 12 else i * i},{i}\n' for i in range(20))
  path = tmp_path / 'own.csv'
  path.write_text('town,a,y\n' + ''.join(rows))
  table.prepare(path, 'own', tmp_path, target='y')
  found = bytes_by_card('tabular')
  # Of 16 rows a number, its mark, a code and a target.
  assert found['data'] == 16 * (4 + 1 + 4 + 4)
  width = embedding_width(2)
  assert found['parameters'] == 4 * (3 * width + (2 + width + 1) * 64 + 64 + 1)


def test_pictures(tmp_path, bytes_by_card):
  for i in range(8):
    path = pathlib.Path(tmp_path, 'pets', 'ab'[i % 2], f'{i}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), (30 * i, 0, 0)).save(path)
  pictures.prepare(tmp_path / 'pets', 'own', tmp_path, size=8)
  assert bytes_by_card('cnn')['data'] == 6 * (8 * 8 * 3 + 4)
