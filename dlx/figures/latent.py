"""Pictures of codes: where images lie, and which latents carry anything. Host only."""

from typing import Any, Sequence

import numpy as np

from dlx.figures import BLUE, GREY, RULE


def codes(
  points_B2: Any, kl_L: Any, label_B: Any, class_names: Sequence[str], title: str = ''
) -> Any:
  """Codes in the plane of their two principal components, and the KL of each latent.

  Args:
    points_B2: the components of each code.
    kl_L: nats of each latent, averaged over images; those near 0 carry nothing.
    label_B: class of each, the colour.
    class_names: one a class.
  """
  import matplotlib
  from matplotlib.figure import Figure

  xy = np.asarray(points_B2)
  label, kl = np.asarray(label_B), np.sort(np.asarray(kl_L, np.float64))[::-1]
  figure = Figure(figsize=(9.4, 4.6), layout='constrained')
  left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
  colours = matplotlib.colormaps['tab10']
  for k, name in enumerate(class_names):
    of_class = label == k
    left.scatter(*xy[of_class].T, s=8, color=colours(k % 10), label=name, linewidths=0)
  left.set(title=title or 'Codes, first two principal components', xticks=[], yticks=[])
  left.legend(fontsize=7, markerscale=2, frameon=False, ncols=2)
  right.bar(np.arange(len(kl)), kl, color=BLUE)
  used = int((kl > 0.01).sum())
  right.set(
    title=f'{used} of {len(kl)} latents in use',
    xlabel='Latent, sorted',
    ylabel='KL, nats',
  )
  for ax in (left, right):
    ax.title.set_fontsize(9.5)
    ax.tick_params(labelsize=8, colors=GREY)
    for side in ax.spines.values():
      side.set_color(RULE)
  return figure
