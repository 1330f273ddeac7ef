"""The folder of published data sets that some tests read; they skip without it."""

import os
import pathlib

import pytest


def folder(*needed: str) -> str:
  """$DLX_DATA_DIR, or a skip where it is unset or lacks one of these paths."""
  named = os.environ.get('DLX_DATA_DIR')
  if not named:
    pytest.skip('DLX_DATA_DIR is not set: no published data to read')
  for path in needed:
    if not (pathlib.Path(named) / path).exists():
      pytest.skip(f'DLX_DATA_DIR lacks {path}')
  return named
