"""oneDNN in use for the tests that ask for it, where the rest leaves it alone."""

import jax
import pytest

from kernels.onednn import library


@pytest.fixture
def onednn(monkeypatch):
  """Built and in use; skips where it is not installed."""
  if jax.default_backend() != 'cpu':
    pytest.skip('oneDNN is for the CPU')
  monkeypatch.setenv(library.SWITCH, 'on')
  library.load.cache_clear()
  library.reason.cache_clear()
  try:
    library.build()
  except library.NotUsable as error:
    pytest.skip(f'oneDNN is not used: {error}')
  assert library.reason() is None
  yield
  monkeypatch.undo()
  library.load.cache_clear()
  library.reason.cache_clear()
