"""Optimisers by name, and the learning rate that each is tried with first."""

from typing import Any, Callable, Mapping, NamedTuple

import optax

from dlx.config import check_choice
from dlx.optim.optimizers import adam, adamw, sgd
from dlx.optim.schedules import Number, Schedule
from dlx.optim.variants import adagrad, lamb, lion, muon, rmsprop


class Rates(NamedTuple):
  """Learning rates of an optimiser.

  Attributes:
    default: what is tried first.
    low, high: between them lies the best of most nets that are trained from scratch.
  """

  default: float
  low: float
  high: float


# Sources: Goodfellow, Bengio and Courville 2016, chapter 8 (sgd); arXiv:1412.6980
# (adam); arXiv:1711.05101 and, for the tuning of pretrained transformers,
# arXiv:1810.04805 (adamw, 1e-5 to 1e-4); Keras (rmsprop, adagrad); arXiv:1904.00962
# (lamb); arXiv:2302.06675 (lion, 3 to 10 times below adam); Jordan et al. 2024 (muon).
RATES: Mapping[str, Rates] = {
  'sgd': Rates(1e-1, 1e-2, 1.0),
  'momentum': Rates(1e-2, 1e-3, 2e-1),
  'nesterov': Rates(1e-2, 1e-3, 2e-1),
  'rmsprop': Rates(1e-3, 1e-4, 1e-2),
  'adagrad': Rates(1e-2, 1e-3, 1e-1),
  'adam': Rates(1e-3, 1e-4, 1e-2),
  'adamw': Rates(1e-3, 1e-5, 1e-2),
  'lamb': Rates(1e-3, 1e-4, 2e-2),
  'lion': Rates(1e-4, 1e-5, 3e-3),
  'muon': Rates(2e-2, 1e-3, 1e-1),
}

OPTIMIZERS: Mapping[str, Callable[..., optax.GradientTransformation]] = {
  'sgd': sgd,
  'momentum': lambda rate, **options: sgd(rate, 0.9, **options),
  'nesterov': lambda rate, **options: sgd(rate, 0.9, True, **options),
  'rmsprop': rmsprop,
  'adagrad': adagrad,
  'adam': adam,
  'adamw': adamw,
  'lamb': lamb,
  'lion': lion,
  'muon': muon,
}


def named_optimizer(
  name: str, learning_rate: Number | Schedule | None = None, **options: Any
) -> optax.GradientTransformation:
  """An optimiser by its name, as a field of a Config gives it.

  Args:
    name: one of OPTIMIZERS; momentum and nesterov are `sgd` with momentum 0.9.
    learning_rate: a number or a schedule; None: the default of RATES.
    options: of its builder.

  Raises:
    ConfigError: another name.
  """
  check_choice('optimizer', name, OPTIMIZERS)
  rate = RATES[name].default if learning_rate is None else learning_rate
  return OPTIMIZERS[name](rate, **options)
