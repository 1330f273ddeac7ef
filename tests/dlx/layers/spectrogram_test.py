"""Spectrograms: sines by hand, energy kept, scipy's; mel bands by their corners."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from dlx.errors import ConfigError
from dlx.layers import spectrogram


def test_frames_by_hand():
  x = jnp.arange(14.0).reshape(2, 7)
  found = spectrogram.frames(x, 3, 2)
  rows = [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
  np.testing.assert_array_equal(found, np.array([rows, np.array(rows) + 7]))
  assert spectrogram.frames(x, 7, 1).shape == (2, 1, 7)
  with pytest.raises(ConfigError, match='size=8 '):
    spectrogram.frames(x, 8, 1)


def test_a_sine_on_a_bin():
  size, k, amplitude = 64, 10, 0.5
  t = np.arange(256)
  x = amplitude * np.sin(2 * np.pi * k * t / size + 0.3)
  found = np.asarray(spectrogram.power_spectrogram(jnp.float32(x)[None], size, 16))
  assert found.shape == (1, 13, 33)
  np.testing.assert_allclose(found[..., k], (amplitude * size / 4) ** 2, rtol=1e-5)
  far = np.delete(found, [k - 1, k, k + 1], -1)
  assert far.max() < 1e-9 * found.max()  # Float32: (1e-7)^2 times 64 terms, and more.


@pytest.mark.parametrize(('size', 'hop'), [(64, 32), (50, 7)])
def test_equals_scipy(size, hop):
  x = np.random.default_rng(0).normal(size=(3, 300))
  _, _, expected = scipy.signal.stft(
    x, nperseg=size, noverlap=size - hop, window='hann', boundary=None, padded=False
  )
  # scipy divides by the sum of the window.
  expected = np.abs(expected * (size / 2)) ** 2
  found = spectrogram.power_spectrogram(jnp.float32(x), size, hop)
  np.testing.assert_allclose(
    found, expected.swapaxes(1, 2), rtol=1e-4, atol=1e-6 * expected.max()
  )


def test_mel_bands():
  filters = spectrogram.mel_filters(8, 256, 8000.0, 100.0, 3000.0)
  assert filters.shape == (129, 8) and filters.min() == 0 and filters.max() <= 1
  hertz = np.arange(129) * 8000 / 256
  assert not filters[(hertz <= 100) | (hertz >= 3000)].any()
  # Between the first centre and the last, two neighbours share a bin: their sum is 1.
  corner = np.linspace(spectrogram.mel(100.0), spectrogram.mel(3000.0), 10)
  inside = (spectrogram.mel(hertz) >= corner[1]) & (
    spectrogram.mel(hertz) <= corner[-2]
  )
  np.testing.assert_allclose(filters[inside].sum(1), 1, rtol=1e-12)
  assert (np.diff(filters.argmax(0)) > 0).all()
  assert spectrogram.mel(700.0) == pytest.approx(2595 * np.log10(2))


@pytest.mark.parametrize(
  ('fields', 'told'),
  [
    ({'bands': 0}, 'bands=0'),
    ({'high': 5000.0}, r'high=5000.0 .* 4000'),
    ({'bands': 200}, 'emptiest band=0'),
  ],
)
def test_refusals(fields, told):
  with pytest.raises(ConfigError, match=told):
    spectrogram.mel_filters(**{'bands': 8, 'size': 256, 'rate': 8000.0, **fields})


def test_log_mel_of_silence_and_of_a_louder_sound():
  given = {'size': 64, 'hop': 32, 'bands': 4, 'rate': 4000.0}
  silence = spectrogram.log_mel(jnp.zeros((1, 128)), **given)
  np.testing.assert_allclose(silence, np.log(1e-6), rtol=1e-6)
  x = jnp.sin(jnp.arange(128.0) * 0.7)[None]
  one, ten = (spectrogram.log_mel(a * x, floor=0.0, **given) for a in (1, 10))
  np.testing.assert_allclose(ten - one, np.log(100), rtol=1e-3)
  assert spectrogram.log_mel(x.astype(jnp.bfloat16), **given).dtype == jnp.float32
