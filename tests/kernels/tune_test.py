"""Tuning: what wins becomes a row that 'auto' follows; what spills does not."""

import json
from types import SimpleNamespace

import jax
import pytest

from kernels import cases, dispatch, tune
from kernels.attention import api
from kernels.static import h200


def tiny():
  return cases._attention('tiny', (2, 8, 2, 16), passes=('forward',), causal=True)[0]


def tiny_conv():
  return cases._conv('c', (2, 6, 6, 8), (3, 3, 1, 8), passes=('forward',), groups=8)[0]


@pytest.mark.parametrize('make', (tiny, tiny_conv))
def test_a_row_survives_its_file_and_holds_for_its_case_alone(make, tmp_path):
  timed = make()
  row = tune.row_of(timed, 'mosaic_gpu', {'keys': 64})
  kind = 'Some GPU'
  text = json.dumps({'rows': [row._asdict()]})
  (tmp_path / dispatch.file_name(kind)).write_text(text)
  (read,) = dispatch.table(tmp_path, kind)
  assert read.config == {'keys': 64}
  assert dispatch.matches(read, timed.case)
  assert dispatch.matches(read, timed.case._replace(batch=64))
  assert not dispatch.matches(read, timed.case._replace(dtype='float16'))
  other = {'head_dim': 32} if make is tiny else {'kernel': (5, 5)}
  assert not dispatch.matches(read, timed.case._replace(**other))


def test_a_trial_is_followed_inside_and_forgotten():
  timed = tiny()
  choice = lambda: api.OPERATION.choose(timed.case, 'auto', 'cuda')
  before = choice().name
  with dispatch.trial(tune.row_of(timed, 'mosaic_gpu', {'keys': 64})):
    assert choice()[0] == 'mosaic_gpu' and choice().config == {'keys': 64}
  assert choice().name == before == 'cudnn'


def test_only_a_clear_win_becomes_a_row(monkeypatch):
  timed, ratios = tiny(), {64: 1.02, 128: 1.5, 192: 0.7}

  def measure(timed, suite, device, auto):
    keys = api.OPERATION.choose(timed.case, 'auto', 'cuda').config['keys']
    ms = {'mosaic_gpu': 1 / ratios[keys], 'cudnn': 1.0}
    ratio = {'mosaic_gpu': ratios[keys]}
    return {
      'case': timed.name, 'ms': ms, 'ratio': ratio, 'best_library': 'cudnn', 'notes': {}
    }  # fmt: skip

  monkeypatch.setattr(tune.bench, 'measure', measure)
  tried = [('mosaic_gpu', {'keys': n}) for n in ratios]
  found = tune.tune(timed, 'attention', 'cuda', tried)
  assert found['won']['config'] == {'keys': 128}
  assert found['won']['evidence']['ratio'] == 1.5
  assert len(found['configs']) == 3
  assert tune.tune(timed, 'attention', 'cuda', tried[:1])['won'] is None
  assert tune.tune(timed, 'attention', 'cuda', [])['won'] is None


def test_what_spills_or_does_not_compile_is_pruned(monkeypatch):
  timed = tiny()
  configs = [{'keys': 64}, {'keys': 128}, {'keys': 192}]
  monkeypatch.setattr(tune, 'configs', lambda *_: configs)

  def compiled(function, *shapes):
    keys = api.OPERATION.choose(timed.case, 'auto', 'cuda').config['keys']
    if keys == 64:
      raise ValueError('keys=64 is not allowed')
    return SimpleNamespace(kernels=[SimpleNamespace(spill_bytes=192 - keys)])

  monkeypatch.setattr(h200, 'compile_for_h200', compiled)
  assert tune.prune([timed], 'attention') == {'tiny': [['mosaic_gpu', configs[2]]]}


def dense_conv(kernel):
  return cases._conv('d', (8, 8, 8, 64), (*kernel, 64, 64), passes=('forward',))[0]


@pytest.mark.parametrize('suite', sorted(cases.SUITES))
def test_every_kernel_lists_block_sizes_that_some_case_takes(suite):
  """Names that a kernel does not know end in an error before anything is compiled."""
  timed = tiny() if suite == 'attention' else tiny_conv()
  for name, config in tune.candidates(timed, suite, 'cuda'):
    with dispatch.trial(tune.row_of(timed, name, config)):
      call = lambda *args: timed.call({'interpret': False}, *args)
      jax.eval_shape(call, *timed.shapes)


@pytest.mark.parametrize(
  ('make', 'name', 'known'),
  (
    (tiny, 'mosaic_gpu', 'keys'),
    (tiny, 'mosaic_tpu', 'block_q'),
    (tiny_conv, 'mosaic_gpu', 'vector'),
    (tiny_conv, 'mosaic_tpu', 'group'),
    (lambda: dense_conv((3, 3)), 'mosaic_gpu', 'warpgroups'),
    (lambda: dense_conv((1, 1)), 'mosaic_tpu', 'features'),
  ),
)
def test_a_size_that_a_kernel_does_not_know_is_refused_by_name(make, name, known):
  timed = make()
  with dispatch.trial(tune.row_of(timed, name, {'no_such_size': 1})):
    with pytest.raises(ValueError, match=f'no_such_size.* must be .*{known}'):
      jax.eval_shape(
        lambda *args: timed.call({'interpret': False}, *args), *timed.shapes
      )


def test_pruning_needs_a_file(capsys):
  with pytest.raises(SystemExit):
    tune.main(['--suite=conv', '--prune'])
  assert '--prune needs --out' in capsys.readouterr().err
