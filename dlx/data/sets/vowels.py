"""Two vowels one after the other, synthesised: short sounds of ten classes.

A voice is a series of harmonics of its pitch; the throat and mouth let those near two
resonances, the formants, pass (Peterson and Barney 1952). A sound glides from the
formants of one vowel to those of another. Five pairs of vowels in both orders are the
classes; played backwards a sound is one of the other order, so that both have one mean
spectrum and only what comes first tells them apart. Pitch, its glide, size of the
speaker, loudness, speed, beginning and noise differ from sound to sound. Every row is a
pure function of split, size and seed.
"""

import functools

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source

RATE = 4000  # Samples a second.
LENGTH = 2048  # Samples of a sound: 0.512 s.
# First two formants, Hz.
FORMANTS = {
  'a': (750, 1200),
  'e': (450, 1600),
  'i': (280, 1800),
  'o': (480, 900),
  'u': (320, 750),
}
CLASSES = ('ai', 'ia', 'au', 'ua', 'ei', 'ie', 'oi', 'io', 'ou', 'uo')
SPLITS = ('train', 'test')
_BANDWIDTH = 90.0  # Of a formant, Hz.


def source(split: str, size: int, noise: float = 0.5, seed: int = 0) -> Source:
  """`signal` float32 [LENGTH] in -1..1 and `label` int32 [] of each sound.

  Args:
    split: 'train' or 'test'; they share no random numbers.
    size: sounds, of all classes nearly as many.
    noise: largest deviation of the white noise in a sound, of the voice's largest
      sample; each sound has its own, from 0 on.
    seed: of all of them.

  Raises:
    ValueError: another split.
  """
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: must be one of {", ".join(SPLITS)}.')
  shapes = {
    'signal': jax.ShapeDtypeStruct((LENGTH,), np.float32),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  read = functools.partial(_read, split, size, noise, seed)
  return Source('vowels', split, shapes, size, read)


def sound(rng: np.random.Generator, label: int, noise: float) -> np.ndarray:
  """One sound [LENGTH], float64, its largest sample 0.2 to 0.9 in size.

  Args:
    rng: what differs from sound to sound.
    label: of CLASSES.
    noise: deviation of white noise, of the voice's largest sample.
  """
  samples = int(rng.uniform(0.25, 0.4) * RATE)
  start = rng.integers(LENGTH - samples + 1)
  at = (np.arange(samples) + 0.5) / samples
  envelope = np.minimum(np.minimum(at, 1 - at) * 8, 1)
  first, second = (np.array(FORMANTS[v]) for v in CLASSES[label])
  # From one vowel to the next in the middle third, at a speed of its own.
  middle, width = rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.35)
  share = np.clip((at - middle) / width + 0.5, 0, 1)[:, None]
  formant_T2 = ((1 - share) * first + share * second) * rng.uniform(0.88, 1.15)
  # As often rising as falling: played backwards, a sound is one of the other order.
  way = at if rng.integers(2) else 1 - at
  pitch = rng.uniform(90, 220) * (1 - rng.uniform(0, 0.2) * way)
  phase = 2 * np.pi * np.cumsum(pitch) / RATE
  harmonic = np.arange(1, int(RATE / 2 / pitch.min()) + 1)
  hertz_TK = pitch[:, None] * harmonic
  near = (hertz_TK[:, :, None] - formant_T2[:, None]) / _BANDWIDTH
  passed = (1 / (1 + near**2)).sum(-1)
  loud = passed / harmonic * (hertz_TK < 0.95 * RATE / 2)
  begin = rng.uniform(0, 2 * np.pi, len(harmonic))
  voice = envelope * (loud * np.sin(phase[:, None] * harmonic + begin)).sum(1)
  heard = noise * rng.standard_normal(LENGTH)
  heard[start : start + samples] += voice / np.abs(voice).max()
  return heard / np.abs(heard).max() * rng.uniform(0.2, 0.9)


def _read(split: str, size: int, noise: float, seed: int, data_dir=None) -> Loaded:
  del data_dir
  rng = np.random.default_rng([seed, SPLITS.index(split)])
  label = rng.permutation(np.arange(size) % len(CLASSES)).astype(np.int32)
  signal = np.stack([sound(rng, k, rng.uniform(0, noise)) for k in label])
  origin = {'name': 'vowels', 'split': split, 'kind': 'generated', 'size': size}
  return Loaded({'signal': signal.astype(np.float32), 'label': label}, origin)
