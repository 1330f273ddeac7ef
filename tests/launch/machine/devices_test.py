"""Tests for launch/machine/devices.py."""

import types

import jax
import pytest

from dlx.errors import ConfigError
from launch.machine import devices


def setting(name: str):
  return getattr(jax.config, name)


@pytest.fixture
def linux(monkeypatch):
  monkeypatch.setattr(devices.sys, 'platform', 'linux')


class TestUseCpuWithoutAccelerator:
  def test_bare_machine(self, tmp_path, linux):
    environ = {}
    devices.use_cpu_without_accelerator(environ, str(tmp_path))
    assert environ == {'JAX_PLATFORMS': 'cpu'}

  @pytest.mark.parametrize(
    'device', ['nvidia0', 'nvidiactl', 'accel0', 'vfio/0', 'kfd', 'dxg']
  )
  def test_device_file(self, tmp_path, linux, device):
    (tmp_path / 'dev' / device).parent.mkdir(parents=True)
    (tmp_path / 'dev' / device).write_text('')
    environ = {}
    devices.use_cpu_without_accelerator(environ, str(tmp_path))
    assert environ == {}

  def test_vfio_without_a_device(self, tmp_path, linux):
    (tmp_path / 'dev' / 'vfio' / 'vfio').mkdir(parents=True)
    environ = {}
    devices.use_cpu_without_accelerator(environ, str(tmp_path))
    assert environ == {'JAX_PLATFORMS': 'cpu'}

  @pytest.mark.parametrize(
    'environ', [{'JAX_PLATFORMS': 'tpu'}, {'JAX_PLATFORMS': ''}, {'TPU_NAME': 'pod'}]
  )
  def test_the_environment_is_obeyed(self, tmp_path, linux, environ):
    before = dict(environ)
    devices.use_cpu_without_accelerator(environ, str(tmp_path))
    assert environ == before

  def test_other_systems_are_left_alone(self, tmp_path, monkeypatch):
    monkeypatch.setattr(devices.sys, 'platform', 'darwin')
    environ = {}
    devices.use_cpu_without_accelerator(environ, str(tmp_path))
    assert environ == {}


class TestUseCompileCache:
  @pytest.mark.parametrize(
    'flag, variables, expected',
    [
      ('flag', {'DLX_CACHE_DIR': 'dlx', 'JAX_COMPILATION_CACHE_DIR': 'jax'}, 'flag'),
      (None, {'DLX_CACHE_DIR': 'dlx', 'JAX_COMPILATION_CACHE_DIR': 'jax'}, 'jax'),
      (None, {'DLX_CACHE_DIR': 'dlx'}, 'dlx'),
      (None, {}, '.cache/dlx/xla'),
    ],
  )
  def test_folder(self, tmp_path, monkeypatch, flag, variables, expected):
    monkeypatch.setenv('HOME', str(tmp_path))
    flag = flag and str(tmp_path / flag)
    variables = {name: str(tmp_path / value) for name, value in variables.items()}
    chosen = devices.use_compile_cache(flag, variables)
    assert chosen == str(tmp_path / expected) == setting('jax_compilation_cache_dir')
    assert (tmp_path / expected).is_dir()

  def test_off(self):
    assert devices.use_compile_cache('off', {'DLX_CACHE_DIR': '/nowhere'}) is None
    assert not setting('jax_enable_compilation_cache')

  def test_not_writable(self, tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='--compile_cache=.*or off'):
      devices.use_compile_cache(str(tmp_path / 'file' / 'cache'), {})
    # The default is nobody's wish: the run goes on without a cache.
    monkeypatch.setenv('HOME', str(tmp_path / 'file'))
    assert devices.use_compile_cache(None, {}) is None


def flags(allocator: str):
  return types.SimpleNamespace(compile_cache='off', allocator=allocator)


class TestStartJax:
  @pytest.mark.parametrize(
    'compute, param, wide',
    [
      ('float32', 'float32', False),
      ('float64', 'float32', True),
      ('float32', 'float64', True),
    ],
  )
  def test_float64_turns_on_64_bit_mode(self, compute, param, wide):
    config = types.SimpleNamespace(compute_dtype=compute, param_dtype=param)
    devices.start_jax(config, flags('default'))
    assert setting('jax_enable_x64') == wide

  @pytest.mark.parametrize(
    'asked, platforms, calls',
    [('tuned', 'cpu', 1), ('default', 'cpu', 0), ('tuned', 'cuda', 0)],
  )
  def test_allocator_is_for_the_cpu(self, asked, platforms, calls, monkeypatch):
    called = []
    monkeypatch.setattr(devices.allocator, 'tune', lambda: called.append(1))
    monkeypatch.setenv('JAX_PLATFORMS', platforms)
    config = types.SimpleNamespace(compute_dtype='float32', param_dtype='float32')
    devices.start_jax(config, flags(asked))
    assert len(called) == calls
