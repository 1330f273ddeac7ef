"""Metrics of data in parts are those of the whole: of unequal batches, micro-batches,
padded rows, and a batch that lies on eight devices."""

import json
import pathlib
import subprocess
import sys

import pytest

from tests import simulated

ROOT = pathlib.Path(__file__).parents[3]
WAYS = ('unequal', 'micro', 'data=8', 'data=2,fsdp=4')
# float64, sums of 22 rows; but float32 of what is kept in it: ranked weights.
MOST = {
  **dict.fromkeys(('classification', 'top_k', 'calibration', 'pictures'), 1e-12),
  **dict.fromkeys(('inception', 'mmd', 'regression', 'segmentation'), 1e-12),
  'detection': 0,
  'frechet': 1e-10,  # Roots of eigenvalues.
  **dict.fromkeys(('ranking', 'ranking_of_bins'), 1e-6),
}


@pytest.fixture(scope='module')
def found():
  done = subprocess.run(
    [sys.executable, '-m', 'tests.dlx.metrics.eight_devices'],
    env={**simulated.environment(8), 'PYTHONPATH': str(ROOT)},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('name', sorted(MOST))
def test_parts_are_the_whole(name, way, found):
  assert found['devices'] == 8
  assert found[f'{name} {way}'] <= MOST[name]


def test_sentences_of_parts_are_all_sentences(found):
  assert found['bleu unequal'] == 0
