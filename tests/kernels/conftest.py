"""oneDNN in use, or a simulated GPU, for the tests that ask for it."""

import functools
from typing import Any, Callable

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


@pytest.fixture
def simulation():
  """Simulated GPU kernels of which an error does not hang, nor outlive, the test."""
  from kernels import mosaic_gpu_compat as compat

  with compat.patience(30):
    yield
  compat.reset()


@pytest.fixture
def planted(monkeypatch):
  """planted(name, run): whether the simulator finds that nobody waits for a barrier.

  That is, for those that kernels of `run` call `name`: an error, a race, or what run()
  returns, whether its results are wrong.
  """
  from jax.experimental.pallas import mosaic_gpu as plgpu

  from kernels import mosaic_gpu_compat as compat

  kernel, wait = compat.kernel, plgpu.barrier_wait

  def without(name: str, body: Callable[..., None], **options: Any) -> Any:
    def hasty(*refs, **held):
      known = lambda barrier: getattr(barrier, 'ref', barrier) is held[name]
      waits = lambda barrier: None if known(barrier) else wait(barrier)
      with monkeypatch.context() as patch:
        patch.setattr(plgpu, 'barrier_wait', waits)
        body(*refs, **held)

    return kernel(hasty, **options)

  def found(name: str, run: Callable[[], bool]) -> bool:
    monkeypatch.setattr(compat, 'kernel', functools.partial(without, name))
    try:
      with compat.patience(5):
        wrong = run()
    except Exception as error:  # XLA's own, around the simulator's.
      return 'barrier' in str(error).lower()
    return wrong or compat.races_found()

  return found
