"""Computes the pictures of a run on the devices and draws them on the host."""

import io
from typing import Any, Callable, Mapping
import zlib

from absl import logging
import jax
import numpy as np

from dlx.data.dataset import Dataset
from dlx.experiment import Figure
from dlx.run import processes
from dlx.run.processes import whole
from dlx.run.records.json_files import write_bytes
from dlx.run.records.tensorboard import EventWriter, png
from dlx.state import TrainState, is_key, leaves_by_path


def draw_figures(
  figures: Mapping[str, Figure],
  programs: Mapping[str, Callable],
  state: TrainState,
  step: int,
  *,
  folder,
  events: EventWriter | None,
  batch: Callable[[Dataset], Any],
  summary: Callable[[str], Mapping[str, np.ndarray]],
  history: Callable[[], Mapping[str, Any]],
):
  """Draws every figure into FOLDER/figures and TensorBoard.

  NAME.png, or NAME.txt where the figure is a text. A figure whose drawing fails is
  reported and left out: a picture never costs a run.

  Args:
    figures: of the experiment.
    programs: jitted `compute` of each that has one, whole on every device.
    state: what they are computed from.
    step: steps done; folded into the keys.
    folder: epath.Path of the workdir.
    events: None on all processes but the first, which draw nothing.
    batch: gives the first batch of a data set, placed.
    summary: gives the summary of an evaluation of `state`, by its name.
    history: gives what training has logged so far, on the first process.
  """
  gives = {'batch': batch, 'summary': summary, 'history': history}
  for name, figure in figures.items():
    processes.meet()  # Drawing took process 0 some time.
    try:
      program = programs.get(name)
      tree = compute(name, figure, program, state, step, **gives)
      if events is None:
        continue
      drawn = figure.draw(tree)
      data, image = (None, None) if isinstance(drawn, str) else to_png(drawn)
    except Exception:
      logging.exception('The figure %r could not be drawn.', name)
      continue
    (folder / 'figures').mkdir(parents=True, exist_ok=True)
    if data is None:
      write_bytes(folder / 'figures' / f'{name}.txt', drawn.encode(errors='replace'))
      continue
    write_bytes(folder / 'figures' / f'{name}.png', data)
    events.image(step, f'figures/{name}', image)
  for name, leaf in leaves_by_path(state.params).items():
    if not is_key(leaf):
      leaf = whole(leaf)  # By all processes together.
      if events is not None:
        events.histogram(step, f'params/{name}', np.array(leaf))


def compute(
  name: str,
  figure: Figure,
  program: Callable | None,
  state: TrainState,
  step: int,
  *,
  batch: Callable[[Dataset], Any],
  summary: Callable[[str], Mapping[str, np.ndarray]],
  history: Callable[[], Mapping[str, Any]],
) -> Any:
  """What `figure.draw` is given, as NumPy arrays; see `draw_figures`."""
  if program is not None:
    rng = state.rng[0] if state.rng.ndim else state.rng  # Of members the first.
    key = jax.random.fold_in(rng, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    data = {} if figure.data is None else batch(figure.data)
    tree = program(state, jax.random.fold_in(key, step), data)
  elif figure.history:
    tree = history()
  else:
    assert figure.eval is not None
    tree = summary(figure.eval)
  return jax.tree.map(np.array, tree)


def to_png(drawn: Any) -> tuple[bytes, np.ndarray]:
  """(PNG file, uint8 HWC) of a matplotlib Figure or a uint8 image."""
  if isinstance(drawn, np.ndarray):
    return png(drawn), drawn
  from PIL import Image

  buffer = io.BytesIO()
  drawn.savefig(buffer, format='png', dpi=150, bbox_inches='tight')
  data = buffer.getvalue()
  with Image.open(io.BytesIO(data)) as image:
    return data, np.asarray(image.convert('RGB'))
