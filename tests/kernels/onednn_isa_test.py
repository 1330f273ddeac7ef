"""bfloat16 on a CPU without instructions for it: computed in float32 inside."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import turns

FOLDER = pathlib.Path(__file__).parent
FILES = ('onednn_test.py', 'onednn_attention_test.py', 'onednn_lstm_test.py')
SOURCES = tuple(f'kernels/onednn/{name}.cc' for name in ('attention', 'conv', 'lstm'))


@turns.seldom(2, files=SOURCES)
@pytest.mark.parametrize('isa', ('AVX512_CORE', 'AVX2'))
def test_results_are_near_float64_too(onednn, isa):
  """oneDNN reads the variable once, when it is loaded: in a process of its own."""
  code = (
    'from kernels.onednn import library\n'
    'import pytest, sys\n'
    'assert not library.has_bfloat16()\n'
    'sys.exit(pytest.main(sys.argv[1:]))'
  )
  options = ['-q', '-x', '-p', 'no:cacheprovider', '-k', 'bfloat16']
  done = subprocess.run(
    [sys.executable, '-c', code, *options, *(str(FOLDER / name) for name in FILES)],
    env={**os.environ, 'ONEDNN_MAX_CPU_ISA': isa},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
