"""From a waveform to the picture of it that nets of sound read: log-mel energies."""

import jax.numpy as jnp
import numpy as np

from dlx.config import check_bounds
from dlx.precision import EXACT, at_least_float32
from dlx.state import Array


def frames(x_BT: Array, size: int, hop: int) -> Array:
  """Overlapping pieces [B, F, size], F = 1 + (T - size) // hop; the rest is left out.

  Args:
    x_BT: T samples, at least `size`.
    size: samples of a frame.
    hop: samples from the start of one frame to that of the next.

  Raises:
    ConfigError: no frame fits.
  """
  check_bounds('hop', hop, 1)
  check_bounds('size', size, 1, x_BT.shape[1])
  count = 1 + (x_BT.shape[1] - size) // hop
  return x_BT[:, hop * np.arange(count)[:, None] + np.arange(size)]


def power_spectrogram(x_BT: Array, size: int, hop: int) -> Array:
  """|DFT|^2 of Hann-windowed frames [B, F, size // 2 + 1], float32 or wider.

  Bin k of a rate of r samples a second is the frequency k r / size. No padding at the
  ends; no scaling: a sine of amplitude a on bin k gives (a size / 4)^2 there.

  Two products with cosines and sines: for frames of some hundred samples no slower than
  an FFT, and divided over devices like any product (XLA's FFT did not come to an end on
  eight simulated ones, jax 0.11.2).
  """
  n = np.arange(size)
  window = 0.5 - 0.5 * np.cos(2 * np.pi * n / size)  # Periodic.
  # Of whole numbers modulo size, so that angles are exact for long frames, too.
  angle = 2 * np.pi * (np.outer(n, np.arange(size // 2 + 1)) % size) / size
  x_BFS = frames(at_least_float32(x_BT), size, hop)
  parts = (window[:, None] * wave(angle) for wave in (np.cos, np.sin))
  real, imaginary = (
    jnp.matmul(x_BFS, jnp.asarray(part, x_BFS.dtype), precision=EXACT) for part in parts
  )
  return jnp.square(real) + jnp.square(imaginary)


def mel(hertz: np.ndarray | float) -> np.ndarray:
  """The mel scale: 2595 log10(1 + f / 700), near linear below 700 Hz."""
  return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def mel_filters(
  bands: int, size: int, rate: float, low: float = 0.0, high: float | None = None
) -> np.ndarray:
  """Triangles [size // 2 + 1, bands], float64, whose corners are equal steps of mel.

  Each rises from the centre of the band before to its own, where it is 1 (the bins may
  miss it), and falls to that of the next.

  Args:
    bands: number of triangles.
    size: samples of a frame.
    rate: samples a second.
    low: of the first band, Hz.
    high: of the last band, Hz, above `low`; None: half the rate.

  Raises:
    ConfigError: a band that no bin lies in, or frequencies above half the rate.
  """
  high = rate / 2 if high is None else high
  check_bounds('bands', bands, 1)
  check_bounds('high', high, low, rate / 2)
  corner = np.linspace(mel(low), mel(high), bands + 2)
  at = mel(np.arange(size // 2 + 1) * rate / size)[:, None]
  rising = (at - corner[:-2]) / np.diff(corner)[:-1]
  falling = (corner[2:] - at) / np.diff(corner)[1:]
  filters = np.maximum(0, np.minimum(rising, falling))
  # More bands than bins: a frame has to be longer.
  check_bounds('bins of the emptiest band', int((filters > 0).sum(0).min()), 1)
  return filters


def log_mel(
  x_BT: Array,
  *,
  size: int,
  hop: int,
  bands: int,
  rate: float,
  low: float = 0.0,
  high: float | None = None,
  floor: float = 1e-6,
) -> Array:
  """Log-mel energies [B, F, bands], float32 or wider.

  Args:
    floor: added to every energy before the logarithm, so that silence is finite.
    x_BT, size, hop, bands, rate, low, high: see `power_spectrogram`, `mel_filters`.
  """
  power_BFK = power_spectrogram(x_BT, size, hop)
  filters = jnp.asarray(mel_filters(bands, size, rate, low, high), power_BFK.dtype)
  return jnp.log(power_BFK @ filters + floor)
