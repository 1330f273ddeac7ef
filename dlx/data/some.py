"""A number or a share of the examples of a source: how many labels a task has."""

from dlx.data.dataset import Source
from dlx.data.sources import held_out, subset


def some(
  source: Source, amount: int | float | None, seed: int = 0, *, by_class: str
) -> Source:
  """Some examples of a source, alike of each class.

  Args:
    source: with a field of integer classes.
    amount: a whole number, see `subset`; a float, the share in (0, 1], see `held_out`;
      None or 1.0: all of them.
    seed: of the choice; the few of a seed are part of its many.
    by_class: name of the field of classes.

  Raises:
    ConfigError: a number below 1 or above what there is, a share outside (0, 1].
  """
  if amount is None or (isinstance(amount, float) and amount == 1):
    return source
  if isinstance(amount, float):
    return held_out(source, amount, seed, by_class=by_class)[1]
  return subset(source, amount, seed, by_class=by_class)
