"""From a trained model to samples."""

from dlx.sampling.autoregressive import Step, choose, generate
from dlx.sampling.beam import Beams, beam_search
from dlx.sampling.diffusion import (
  Denoise,
  Steps,
  ddim,
  ddpm,
  denoiser,
  guided,
  row_noise,
  sample,
  sample_path,
)
from dlx.sampling.interpolation import linear, slerp

__all__ = [
  'Beams',
  'Denoise',
  'Step',
  'Steps',
  'beam_search',
  'choose',
  'ddim',
  'ddpm',
  'denoiser',
  'generate',
  'guided',
  'linear',
  'row_noise',
  'sample',
  'sample_path',
  'slerp',
]
