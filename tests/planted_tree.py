"""A small tree of code with every form of import, for tests of closures."""

import pathlib

FILES = {
  'README.md': '',
  'dlx/__init__.py': '',
  'dlx/errors.py': 'import numpy\n',
  'dlx/layers/__init__.py': '"""Imports nothing."""\n',
  'dlx/layers/dense.py': 'from ..errors import ConfigError\n',
  'dlx/layers/graph.py': 'def f():\n  import kernels.sparse\n',
  'dlx/losses/__init__.py': 'from dlx.losses.huber import huber as huber\n',
  'dlx/losses/huber.py': 'from . import squared\n',
  'dlx/losses/squared.py': '',
  'dlx/models/circle.py': 'from dlx.models import ring\n',
  'dlx/models/ring.py': 'import dlx.models.circle\n',
  'dlx/never.py': 'import dlx.errors\n',
  'kernels/conv/__init__.py': "CPU = lazy('kernels.conv.cpu')\n",
  'kernels/conv/cpu.py': '',
  'kernels/conv/cpu.cc': '',
  'kernels/conv/tuned/gpu.json': '',
  'kernels/sparse.py': '',
  'experiments/graphs/gcn.py': 'from dlx.layers import graph\nimport dlx.losses\n',
  'experiments/vision/cnn.py': (
    'from dlx.layers.dense import Dense\nimport kernels.conv\nimport dlx.models.ring\n'
  ),
}


def plant(folder: pathlib.Path) -> pathlib.Path:
  """Writes the files below a folder, and gives it back."""
  for name, text in FILES.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
  return folder
