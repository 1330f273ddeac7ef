"""Tests for dlx/inspect/places.py."""

import types

from dlx.inspect import places

TEXT = """@dataclass(frozen=True)
class Config:
  lr: float = 1.0


def build(config):
  data = read(config)
  return make(config, loss=lambda x: x)
"""


def test_lines(tmp_path):
  path = tmp_path / 'fork.py'
  path.write_text(TEXT)
  module = types.SimpleNamespace(__file__=str(path))
  found = lambda about: places.find(module, about)
  assert found('lr') == 'fork.py:3'
  assert found('data') == 'fork.py:7'
  assert found('loss') == 'fork.py:8'
  assert found('dropout lr') == 'fork.py:3'  # The first that is there.
  assert found('dropout') == 'fork.py:6'  # Nothing of that name: `build`.
  assert found('frozen') == 'fork.py:6'  # No decorator.
  assert found('') == ''
  assert places.find(types.SimpleNamespace(), 'lr') == ''
