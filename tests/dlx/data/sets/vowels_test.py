"""Two vowels: the same in every run, formants where they belong, order alone tells."""

import numpy as np
import pytest

from dlx.data import sources
from dlx.data.sets import vowels


def read(split, size, seed=0):
  return sources.read(vowels.source(split, size, seed=seed)).data


def test_a_pure_function_of_split_size_and_seed():
  one, again = read('train', 30), read('train', 30)
  np.testing.assert_array_equal(one['signal'], again['signal'])
  np.testing.assert_array_equal(np.bincount(one['label']), np.full(10, 3))
  for other in (read('test', 30), read('train', 30, seed=1)):
    assert not np.isclose(one['signal'][:, None], other['signal'][None]).all(-1).any()
  size = np.abs(one['signal']).max(1)
  assert size.min() >= 0.2 and size.max() <= 0.9
  with pytest.raises(ValueError, match="split='dev'"):
    vowels.source('dev', 3)


def centre(signal):
  """Mean frequency above 600 Hz, Hz: about the second formant."""
  power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
  hertz = np.fft.rfftfreq(len(signal), 1 / vowels.RATE)
  high = hertz > 600
  return (power[high] * hertz[high]).sum() / power[high].sum()


@pytest.mark.parametrize(('word', 'rises'), [('oi', True), ('io', False)])
def test_the_second_formant_glides(word, rises):
  rng, sign, glides = np.random.default_rng(0), 1 if rises else -1, []
  for _ in range(20):
    signal = vowels.sound(rng, vowels.CLASSES.index(word), noise=0.0)
    (there,) = np.nonzero(np.abs(signal) > 1e-9)
    signal = signal[there[0] : there[-1]]
    third = len(signal) // 3
    glides.append(sign * (centre(signal[-third:]) - centre(signal[:third])))
  # Harmonics are up to 220 Hz apart, so that single sounds differ by as much.
  assert min(glides) > 0 and np.mean(glides) > 400


def test_both_orders_have_one_mean_spectrum():
  rng = np.random.default_rng(1)

  def mean(word):
    label = vowels.CLASSES.index(word)
    found = [np.abs(np.fft.rfft(vowels.sound(rng, label, 0.05))) for _ in range(300)]
    found = [x / np.linalg.norm(x) for x in found]
    return np.mean(found, 0).reshape(25, 41).mean(1)  # 25 bands of 80 Hz.

  # Two means of the same word are as far apart as chance puts them.
  ai, again, ia, ou = (mean(word) for word in ('ai', 'ai', 'ia', 'ou'))
  chance = np.linalg.norm(ai - again)
  assert np.linalg.norm(ai - ia) < 2 * chance < 0.4 * np.linalg.norm(ai - ou)


def test_nothing_above_the_harmonics_that_are_left_in():
  signal = vowels.sound(np.random.default_rng(2), 1, noise=0.0)
  power = np.abs(np.fft.rfft(signal)) ** 2
  assert power[int(0.98 * len(power)) :].sum() < 1e-3 * power.sum()
