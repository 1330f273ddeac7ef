"""Tests for dlx/inspect/samples.py: samples that are planted, one fault each."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from dlx.experiment import Field, Function
from dlx.inspect import samples

CLASSES, PIXELS, COUNT = 4, 16, 600
RNG = np.random.default_rng(0)
CENTRES = RNG.integers(0, 200, (CLASSES, PIXELS))
LABEL = np.tile(np.arange(CLASSES), COUNT // CLASSES).astype(np.int32)


def drawn(label, seed, spread=50):
  """Images of classes, whole numbers to 255, [N, 4, 4, 1]."""
  noise = np.random.default_rng(seed).integers(0, spread + 1, (len(label), PIXELS))
  return (CENTRES[label] + noise).clip(0, 255).reshape(-1, 4, 4, 1)


REAL = drawn(LABEL, 1).astype(np.uint8)
TOP = REAL.max()


def report(made, conditional=False, rows=None):
  """Of a generator whose sample of seed n is `made[n]`, whole numbers."""
  unit = jnp.asarray(np.asarray(made) / TOP, jnp.float32)

  def call(state, inputs):
    return {'image': unit[inputs['seed'] % len(unit)]}

  label = {'label': Field('label', (), 'int32')} if conditional else {}
  sample = Function(
    call,
    {'seed': Field('seed', (), 'uint32'), **label},
    {'image': Field('image', (4, 4, 1), 'float32')},
  )
  rows = {'image': REAL, 'label': LABEL} if rows is None else rows
  data = types.SimpleNamespace(shapes=[dict.fromkeys(rows)])
  asked = types.SimpleNamespace(
    experiment=types.SimpleNamespace(train_data=data, functions={'sample': sample}),
    rows=lambda dataset, limit: rows,
  )
  return samples.report(asked, None)  # pyright: ignore


def names(found):
  return {one.name: one.severity for one in found.findings}


GOOD = drawn(LABEL, 2)


def test_samples_like_the_data_have_no_finding():
  found = report(GOOD, conditional=True)
  assert found.skipped is None and names(found) == {}
  assert '4 of 4 classes, 100% of the class asked for' in found.said
  assert list(found.figures) == ['samples']
  assert found.tables['Samples by class'][1] == ('0', '125', '125')


def test_one_image_for_all_seeds():
  found = report(GOOD[:1].repeat(COUNT, 0))
  assert names(found) == {'noise_ignored': 'error', 'missing_modes': 'error'}
  # Of each class one: the spread is that of seeds, not of classes.
  found = report(drawn(LABEL, 2, spread=0), conditional=True)
  assert names(found) == {'noise_ignored': 'error'}


def test_many_seeds_with_few_images():
  few = np.concatenate([GOOD[:8] + k for k in range(2)])  # Off by one of 255.
  found = report(np.tile(few, (40, 1, 1, 1)))
  assert names(found) == {'mode_collapse': 'error'}
  assert '100% of 500 samples are near-duplicates' in found.findings[0].evidence


def test_a_fifth_of_near_duplicates_is_the_bound():
  some = GOOD.copy()
  some[:40] = some[40:80]  # 80 of 500 are near another one.
  assert names(report(some)) == {}
  some[:60] = some[60:120]
  assert names(report(some)) == {'mode_collapse': 'error'}


def test_copies_of_training_examples():
  found = report(np.concatenate([REAL[:50], GOOD[50:]]))
  assert names(found) == {'copies_of_training_examples': 'error'}
  assert '10% of 500' in found.findings[0].evidence
  assert names(report(np.concatenate([REAL[:20], GOOD[20:]]))) == {}


def test_missing_classes():
  for label, severity in ((LABEL % 3, 'warning'), (LABEL % 2, 'error')):
    found = report(drawn(label, 2))
    assert names(found) == {'missing_modes': severity}
  assert 'class 2 0 of 125, class 3 0 of 125' in found.findings[0].evidence


def test_a_class_that_was_not_asked_for():
  found = report(drawn((LABEL + 1) % CLASSES, 2), conditional=True)
  assert names(found) == {'asked_class_ignored': 'error'}
  assert '0% of the samples' in found.findings[0].evidence
  most = np.where(np.arange(COUNT) % 20 < 11, LABEL, (LABEL + 1) % CLASSES)
  assert names(report(drawn(most, 2), conditional=True)) == {}


def test_classes_are_judged_only_where_neighbours_tell_them():
  rows = {'image': REAL, 'label': RNG.permutation(LABEL)}
  found = report(drawn(LABEL % 2, 2), rows=rows)
  assert names(found) == {} and 'classes not judged' in found.said


def test_data_without_labels_and_without_pictures():
  rows = {'image': REAL.reshape(COUNT, -1).astype(np.float32) / TOP}
  found = report(GOOD.reshape(COUNT, -1), rows=rows)
  assert names(found) == {} and found.said.endswith('copies') and not found.figures


@pytest.mark.parametrize(
  ('made', 'rows', 'why'),
  [
    (GOOD * np.nan, None, 'not finite'),
    (GOOD, {'image': REAL[:99]}, 'needed are 500 training examples, not 99'),
    (GOOD, {'other': REAL}, 'no function gives'),
  ],
)
def test_what_cannot_be_asked_is_skipped(made, rows, why):
  assert why in report(made, rows=rows).skipped
