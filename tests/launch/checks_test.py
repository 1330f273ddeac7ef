"""Tests for launch/checks.py: each finds an experiment that lacks what it asks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from dlx.experiment import Field, Function, Overfit
from launch import check, checks
from tests.dlx.run import kinds

ROW = {'x': Field('row', (3,), 'float32')}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(kinds.Small):
  num_steps: int = 6
  eval_every_steps: int | None = 3


def build(config):
  return kinds.classifier(config)


def with_function(call):
  return build(Config())._replace(functions={'predict': Function(call, ROW, ROW)})


def test_traced():
  checks.traced(build, Config())
  silent = lambda config: build(config)._replace(
    evals={
      'val': build(config).evals['val']._replace(summarize=lambda s: {'x': jnp.ones(3)})
    }
  )
  with pytest.raises(checks.Failed, match="'val' reports no number"):
    checks.traced(silent, Config())


def test_restarted(tmp_path):
  assert checks.restarted(build, Config(), tmp_path / 'a')['step'] == 6
  starts = []

  def forgetful(config):
    """Each start draws noise of its own: it lies in no state."""
    starts.append(len(starts))
    noise, experiment = float(len(starts)), build(config)

    def train_step(state, batch):
      new, sums = experiment.train_step(state, batch)
      params = jax.tree.map(lambda x: x + 1e-3 * noise, new.params)
      return new._replace(params=params), sums

    return experiment._replace(train_step=train_step)

  with pytest.raises(checks.Failed, match='ended with other bits'):
    checks.restarted(forgetful, Config(), tmp_path / 'b')


def test_rows():
  assert checks.rows(with_function(lambda s, x: {'x': 2 * x['x']})) == 1
  for call, message in (
    (lambda s, x: {'x': x['x'] - x['x'].mean(0, keepdims=True)}, 'another with'),
    (lambda s, x: {'x': x['x'] + 1e-4 * x['x'].mean(0, keepdims=True)}, 'another with'),
    (lambda s, x: {'x': x['x'] / 0}, 'is not finite'),
    (lambda s, x: {'x': 0 * x['x']}, 'the same for every input'),
  ):
    with pytest.raises(checks.Failed, match=message):
      checks.rows(with_function(call))
  assert checks.rows(build(Config())) == 0


def test_rows_with_padding():
  tokens = Field('tokens', ('length',), 'int32', pad=0)

  def of(call):
    function = Function(call, {'x': tokens}, {'x': Field('number', (), 'float32')})
    return build(Config())._replace(functions={'score': function})

  total = lambda x: x.sum(1).astype(jnp.float32)
  right = lambda s, inputs: {'x': total(inputs['x']) / (inputs['x'] != 0).sum(1)}
  assert checks.rows(of(right)) == 1
  with pytest.raises(checks.Failed, match='score: x of a row is another with padding'):
    checks.rows(of(lambda s, inputs: {'x': total(inputs['x']) / inputs['x'].shape[1]}))


def test_a_number_may_be_constant_only_where_one_class_is_the_likeliest():
  outputs = {
    'odds': Field('probabilities', (2,), 'float32', names=('a', 'b')),
    'number': Field('number', (), 'float32'),
  }

  def of(scale):
    def call(state, inputs):
      x_B = inputs['x'].reshape(len(inputs['x']), -1).sum(1)
      odds_B = jax.nn.sigmoid(scale * x_B) * (0.4 if scale < 1 else 1)
      odds_B2 = jnp.stack([odds_B, 1 - odds_B], axis=1)
      return {'odds': odds_B2, 'number': jnp.ones(len(x_B))}

    function = Function(call, {'x': Field('row', (3,), 'float32')}, outputs)
    return build(Config())._replace(functions={'predict': function})

  assert checks.rows(of(0.1)) == 1  # The second class is the likeliest of all.
  with pytest.raises(checks.Failed, match='number is the same for every input'):
    checks.rows(of(10.0))


def test_overfitted():
  says = lambda overfit: lambda config: build(config)._replace(overfit=overfit)
  config = Config(num_steps=3)
  assert checks.overfitted(says(None), config) is None
  assert checks.overfitted(says('nothing is fitted'), config) is None
  least = checks.overfitted(says(Overfit(above=50.0)), config)
  assert least is not None and least <= 50
  with pytest.raises(checks.Failed, match='3 times is not learnt: loss came to'):
    checks.overfitted(says(Overfit(above=1e-9)), config)
  with pytest.raises(checks.Failed, match=r"overfit=\('loss', 1e-09\) .* an Overfit"):
    checks.overfitted(says(('loss', 1e-9)), config)
  # The batch has 8 rows: 2 - 2 + 1e-9, in the two steps that are asked for.
  rows = lambda batch: jnp.float32(len(batch['y']))
  goal = Overfit(above=1e-9 - 2, least=lambda batch: rows(batch) / 4, steps=2)
  with pytest.raises(checks.Failed, match='2 times .* floor of `overfit` is 1e-09'):
    checks.overfitted(says(goal), config)


def test_overfitted_with_fields_switched_off():
  def of(fields):
    goal = lambda config: Overfit(above=config.num_steps - 2.0 + 1e-9, fields=fields)
    return lambda config: build(config)._replace(overfit=goal(config))

  # The floor is that of the config with the fields: 1e-9 - 1 with one step.
  with pytest.raises(checks.Failed, match='1 times .* floor of `overfit` is -1'):
    checks.overfitted(of({'num_steps': 1}), Config(num_steps=90))
  least = checks.overfitted(of({}), Config(num_steps=90))
  assert least is not None and least < 88
  with pytest.raises(checks.Failed, match='fields of `overfit`: .*did you mean num_st'):
    checks.overfitted(of({'num_step': 1}), Config(num_steps=90))


def test_refused_and_half_precision():
  # Nothing of the toy reads a flag, so that a start refuses each.
  assert checks.refused(build, Config()) == list(checks.OTHER)
  assert not checks.half_precision(build, Config())

  def reads(config):
    assert config.compute_dtype and config.ema_decay != 0
    return build(config)

  assert 'ema_decay' not in checks.refused(reads, Config())
  with pytest.raises(checks.Failed, match='compute_dtype=bfloat16 has no effect'):
    checks.half_precision(reads, Config())

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Refusing(Config):
    def __post_init__(self):
      super().__post_init__()
      names = ('ema_decay', 'clip_norm', 'clip_value', 'micro_batches')
      self.unused(*names, 'compute_dtype', why='a toy')

  assert checks.refused(build, Refusing()) == list(checks.OTHER)
  assert not checks.half_precision(build, Refusing())


def test_the_launcher_names_what_fails(capsys):
  def fails():
    raise checks.Failed('a reason')

  assert check.run('first', lambda: 'found') and not check.run('second', fails)
  out = capsys.readouterr().out.splitlines()
  assert out[0].startswith('ok') and out[0].endswith('first: found')
  assert out[1].startswith('FAIL') and out[1].endswith('second: a reason')
  assert check.main(['check', '--exp=none']) == 2
  assert json.dumps(capsys.readouterr().err).count('is no experiment') == 1
