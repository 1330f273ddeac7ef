"""What is combined with a run: other runs, views, checkpoints, a temperature."""

from typing import NamedTuple, Sequence

from dlx.data.images import fixed_views
from dlx.run.combining.classifiers import Member


class Asked(NamedTuple):
  """What is combined.

  Attributes:
    members: other runs.
    views: of every image; (): none but the image.
    temperature: a number, or 'fit'; None: none.
    average: checkpoints, see `weights.steps_of`; None: none.
    soup: 'uniform' or 'greedy'; None: none.
    norm_batches: training batches over which statistics of batch norm are found anew.
    save: new workdir for the averaged weights, of the soup where there is one.
  """

  members: Sequence[Member] = ()
  views: Sequence[fixed_views.View] = ()
  temperature: float | str | None = None
  average: str | None = None
  soup: str | None = None
  norm_batches: int = 100
  save: str | None = None

  @property
  def chooses(self) -> bool:
    """Whether examples have to be held out."""
    return self.temperature == 'fit' or self.soup == 'greedy'

  @property
  def flag(self) -> str | None:
    """The flag by which probabilities are needed; None: they are not."""
    if self.members or self.soup:
      return '--members'
    if self.views:
      return '--tta'
    return None if self.temperature is None else '--temperature'
