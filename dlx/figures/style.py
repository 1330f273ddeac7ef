"""Colours, axes and sizes that all figures share."""

from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

INK, GREY, RULE = '#1f2933', '#6b7683', '#d5dae1'
BLUE, RED = '#2563a8', '#c62f2f'


def names_of_classes(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
  """The names as strings; 0 to K - 1 where None. ValueError: not one a class."""
  if class_names is None:
    return [str(k) for k in range(num_classes)]
  if len(class_names) != num_classes:
    raise ValueError(f'{len(class_names)} class names for {num_classes} classes.')
  return [str(name) for name in class_names]


def new_figure(width: float, height: float) -> 'Figure':
  """An empty figure of so many inches, made without pyplot, laid out by itself."""
  from matplotlib.figure import Figure

  figure = Figure((width, height), dpi=160, facecolor='white', layout='constrained')
  pads = {'w_pad': 0.06, 'h_pad': 0.06, 'wspace': 0.0, 'hspace': 0.0}
  figure.get_layout_engine().set(**pads)  # pyright: ignore
  return figure


def ramp(light: str, dark: str) -> Any:
  """A colour map from one colour to another."""
  from matplotlib.colors import LinearSegmentedColormap

  return LinearSegmentedColormap.from_list('', [light, dark])


def style_axes(ax: 'Axes', title: str) -> None:
  """The title, quiet ticks and spines, none at the top and on the right."""
  ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  for label in (ax.xaxis.label, ax.yaxis.label):
    label.set(fontsize=9, color=INK)
  ax.tick_params(labelsize=8, colors=GREY, length=3, color=RULE)
  for spine in ax.spines.values():
    spine.set_color(RULE)
  ax.spines[['top', 'right']].set_visible(False)
