"""Ensembles, views, temperature, averages and soups against what predict says.

Softmax regression is its own reference: the mean of its weights gives the geometric
mean of its probabilities, normalised.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from scipy import special

import dlx
from dlx.data.images import fixed_views
from dlx.errors import ConfigError
from dlx.metrics import temperature
from dlx.run import reopen
from dlx.run.combining import norm_statistics
from dlx.run.combining.classifiers import Member
from dlx.run.combining.combined import Asked, combined
from dlx.run.loop import fit
from experiments.foundations import curve, mlp, softmax_regression
from experiments.vision import spectrogram
from tests import turns

# Learnt well enough for answers that differ.
SMALL = dataclasses.replace(
  softmax_regression.SMALL,
  num_steps=12,
  lr=0.05,
  save_every_steps=4,
  keep_checkpoints=3,
  validation=0.2,
)


class Runs(NamedTuple):
  soft: Member
  other: Member
  deep: Member
  whole: Member  # Without a split validation.


def trained(folder, module, name, config) -> Member:
  experiment = module.build(config)._replace(figures={})
  fit(experiment, config, folder, name=name, terminal=False)
  return Member(str(folder), experiment, config)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  soft = lambda name, **changes: trained(
    folder / name,
    softmax_regression,
    'softmax_regression',
    dataclasses.replace(SMALL, **changes),
  )
  deep = dataclasses.replace(
    mlp.SMALL, num_steps=12, lr=0.05, features=(8,), validation=0.2
  )
  return Runs(
    soft('soft'),
    soft('other', seed=1),
    trained(folder / 'deep', mlp, 'mlp', deep),
    soft('whole', validation=0.0),
  )


def data_of(member, split='test'):
  found = member.experiment.evals[split].data.load().data
  return found['image'], np.asarray(found['label'])


def said(member, image, **options):
  """Probabilities, by the run that is opened again."""
  found = dlx.open(member.workdir, **options).outputs('predict', image=image)
  return np.float64(found['probabilities'])


def scores(probs, label):
  rows = np.arange(len(label))
  confidence, right = probs.max(1), probs.argmax(1) == label
  bins = np.clip(np.ceil(confidence * 15) - 1, 0, 14)
  gaps = [(right - confidence)[bins == i].sum() for i in range(15)]
  return {
    'accuracy': right.mean(),
    'nll': -np.log(probs[rows, label]).mean(),
    'brier': ((probs - np.eye(10)[label]) ** 2).sum(1).mean(),
    'ece': np.abs(gaps).sum() / len(label),
  }


def check(metrics, split, row, probs, label):
  for name, value in scores(probs, label).items():
    # Probabilities in float32, of which 360 are added; ece: one may change its bin.
    tolerance = 2e-3 if name == 'ece' else 1e-5
    key = f'{split}/{name}{row}'
    np.testing.assert_allclose(metrics[key], value, atol=tolerance, err_msg=key)


def tempered(probs, value):
  return special.softmax(np.log(probs) / value, 1)


def geometric(*probs):
  return special.softmax(np.mean(np.log(probs), 0), 1)


def test_an_ensemble_of_two_experiments(runs):
  found = combined(runs.soft, Asked(members=[runs.other, runs.deep]))
  image, label = data_of(runs.soft)
  each = [said(member, image) for member in runs[:3]]
  for split in ('test', 'validation'):
    assert f'{split}/nll_ensemble' in found.metrics
  check(found.metrics, 'test', '', each[0], label)
  check(found.metrics, 'test', '_ensemble', np.mean(each, 0), label)
  wanted = [scores(x, label) for x in each]
  for name in wanted[0]:
    values = [x[name] for x in wanted]
    members = found.metrics[f'test/{name}_members']
    np.testing.assert_allclose(members, values, atol=2e-3)
    np.testing.assert_allclose(found.metrics[f'test/{name}_mean'], np.mean(members))
  chosen = [x.argmax(1) for x in each]
  pairs = [(a, b) for i, a in enumerate(chosen) for b in chosen[:i]]
  np.testing.assert_allclose(
    found.metrics['test/disagreement'], np.mean([(a != b).mean() for a, b in pairs])
  )
  assert found.told == {'members': [x.workdir for x in runs[:3]]}
  # Log-loss is convex: never above the mean.
  assert found.metrics['test/nll_ensemble'] <= found.metrics['test/nll_mean']
  own = reopen.evaluate(runs.soft.experiment, runs.soft.config, runs.soft.workdir)
  assert own.items() <= found.metrics.items()


def test_views_and_a_temperature_that_is_given(runs):
  views = fixed_views.flips()
  found = combined(runs.soft, Asked(views=views, temperature=2.0))
  image, label = data_of(runs.soft)
  probs = np.mean([said(runs.soft, x) for x in (image, image[:, :, ::-1])], 0)
  check(found.metrics, 'test', '_tta', probs, label)
  check(found.metrics, 'test', '_calibrated', tempered(probs, 2.0), label)
  assert found.told == {'views': 2}
  assert set(found.bins['test']) == {'run', 'tta', 'calibrated'}
  assert found.bins['test']['tta']['count'].sum() == len(label)


def test_a_temperature_fitted_on_validation(runs):
  found = combined(runs.soft, Asked(temperature='fit'))
  image, label = data_of(runs.soft, 'validation')
  value = float(temperature.fit_temperature(said(runs.soft, image), label))
  np.testing.assert_allclose(found.metrics['temperature'], value, rtol=1e-3)
  image, label = data_of(runs.soft)
  probs = tempered(said(runs.soft, image), value)
  check(found.metrics, 'test', '_calibrated', probs, label)
  assert found.told == {'held_out': 'validation'}
  assert 'validation/nll' not in found.metrics  # It was fitted on them.
  assert 'validation/accuracy' in found.metrics  # Of the experiment itself.


def test_a_temperature_fitted_on_half_of_the_test_split(runs):
  found = combined(runs.whole, Asked(temperature='fit'))
  image, label = data_of(runs.whole)
  order = np.random.default_rng(0).permutation(len(label))
  held, rest = order[: len(label) // 2], order[len(label) // 2 :]
  probs = said(runs.whole, image)
  value = float(temperature.fit_temperature(probs[held], label[held]))
  np.testing.assert_allclose(found.metrics['temperature'], value, rtol=1e-3)
  check(found.metrics, 'test_half', '', probs[rest], label[rest])
  calibrated = tempered(probs, value)
  check(found.metrics, 'test_half', '_calibrated', calibrated[rest], label[rest])
  assert found.told == {'held_out': 'a half of test, drawn by seed 0'}
  assert set(found.bins) == {'test_half'} and 'test/nll' not in found.metrics
  assert found.bins['test_half']['run']['count'].sum() == len(rest)


def test_averaged_checkpoints(runs):
  asked = Asked(members=[runs.other], average='last:2')
  found = combined(runs.soft, asked)
  image, label = data_of(runs.soft)
  probs = [geometric(*(said(x, image, step=n) for n in (8, 12))) for x in runs[:2]]
  check(found.metrics, 'test', '', said(runs.soft, image), label)
  check(found.metrics, 'test', '_average', probs[0], label)
  check(found.metrics, 'test', '_ensemble', np.mean(probs, 0), label)
  # The experiment's own evaluation of the averaged weights.
  wanted = scores(probs[0], label)['nll']
  np.testing.assert_allclose(found.metrics['test/loss_average'], wanted, atol=1e-5)
  assert found.told['average'] == {x.workdir: [8, 12] for x in runs[:2]}


def test_soups(runs, tmp_path):
  image, label = data_of(runs.soft)
  both = [said(x, image) for x in runs[:2]]
  saved = str(tmp_path / 'soup')
  asked = Asked(members=[runs.other], soup='uniform', save=saved)
  uniform = combined(runs.soft, asked)
  check(uniform.metrics, 'test', '_soup', geometric(*both), label)
  assert uniform.told['soup'] == [runs.soft.workdir, runs.other.workdir]

  # A run of its own, that commands open.
  opened = dlx.open(saved)
  np.testing.assert_allclose(opened.predict(image=image), geometric(*both), atol=1e-5)
  assert opened.record['combined'] == uniform.told and opened.step == 12
  again = reopen.evaluate(runs.soft.experiment, runs.soft.config, saved)
  accuracy = uniform.metrics['test/accuracy_soup']
  np.testing.assert_allclose(again['test/accuracy'], accuracy)
  refused('soup is there already: give a new folder', runs.soft, asked)

  greedy = combined(runs.soft, Asked(members=[runs.other], soup='greedy'))
  held, truth = data_of(runs.soft, 'validation')
  each = [said(x, held) for x in runs[:2]]
  accuracies = [(x.argmax(1) == truth).mean() for x in each]
  together = (geometric(*each).argmax(1) == truth).mean()
  best = int(np.argmax(accuracies))
  kept = [best, 1 - best] if together >= max(accuracies) else [best]
  assert greedy.told['soup'] == [runs[i].workdir for i in kept]
  wanted = geometric(*(both[i] for i in kept))
  check(greedy.metrics, 'test', '_soup', wanted, label)
  assert 'validation/nll_soup' not in greedy.metrics


@turns.seldom(1)
def test_a_soup_with_batch_norm_has_statistics_of_its_own(runs):
  """Of a run and itself: the run's weights, with the statistics of two batches."""
  asked = Asked(members=[runs.deep], soup='uniform', norm_batches=2)
  found = combined(runs.deep, asked)
  opened = reopen.opened(*runs.deep[1:], runs.deep.workdir, train=True)
  state = norm_statistics.recomputed(opened, opened.state, 2)
  loss = opened.metrics(state)['test/loss']
  np.testing.assert_allclose(found.metrics['test/nll_soup'], loss, rtol=1e-5)
  assert abs(found.metrics['test/nll'] - loss) > 1e-3


def refused(match, first, asked):
  with pytest.raises(ConfigError, match=match) as error:
    combined(first, asked)
  assert '\n' not in str(error.value)


def test_what_does_not_go_together(runs):
  soft = runs.soft
  regression = Member('line', curve.build(curve.SMALL), curve.SMALL)
  needs = 'needs probabilities of classes, which no function of line gives'
  refused(f'--tta {needs}', regression, Asked(views=fixed_views.flips()))
  refused(f'--temperature {needs}', regression, Asked(temperature='fit'))
  refused(f'--show {needs}', regression, Asked())
  refused(f'--members {needs}', soft, Asked(members=[regression]))
  signals = Member('sounds', spectrogram.build(spectrogram.SMALL), spectrogram.SMALL)
  refused('--members=sounds is not allowed beside .*the data set must be the same, and '
          'vowels is not digits', soft, Asked(members=[signals]))  # fmt: skip
  refused('--tta is of images, and predict of sounds reads signal', signals,
          Asked(views=fixed_views.flips()))  # fmt: skip
  renamed = signals._replace(config=dataclasses.replace(SMALL))
  refused('the classes must be the same', soft, Asked(members=[renamed]))
  refused('held out --config.validation=0.0 of .* take runs of one value', soft,
          Asked(members=[runs.whole], temperature='fit'))  # fmt: skip
  refused(
    '--soup=uniform is not allowed of .* weights must have the same shapes, and '
    'head/kernel is',
    soft,
    Asked(members=[runs.deep], soup='uniform'),
  )
  wide = runs.other._replace(config=dataclasses.replace(SMALL, compute_dtype='float64'))
  refused('float64 must be the same', soft, Asked(members=[wide]))


def test_a_vocabulary_must_be_the_same(runs, tmp_path):
  (tmp_path / 'vocabulary.json').write_text('{"words": ["a"]}')
  other = runs.other._replace(workdir=str(tmp_path))
  refused('the vocabulary must be the same', runs.soft, Asked(members=[other]))


@turns.seldom(2)
def test_a_regression_may_have_its_checkpoints_averaged(tmp_path):
  config = dataclasses.replace(curve.SMALL, save_every_steps=3, keep_checkpoints=2)
  member = trained(tmp_path / 'w', curve, 'curve', config)
  found = combined(member, Asked(average='last:2'))
  own = reopen.evaluate(member.experiment, config, member.workdir)
  assert set(found.metrics) == {*own, *(f'{name}_average' for name in own)}
