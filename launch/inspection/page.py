"""The files of a view: a PNG a figure, the arrays, and one page."""

import io
import os
from typing import Any, Mapping

from etils import epath
import numpy as np

from dlx.report.comparison import table
from dlx.report.document import document, pictures
from dlx.report.markup import section, text
from dlx.report.markup import table as pairs
from dlx.run.drawing import to_png
from dlx.run.records.json_files import write_bytes
from launch.inspection.asked import View


def write(folder: str, facts: Mapping[str, Any], view: View) -> str:
  """Writes FOLDER/report.html, NAME.png of each figure, maps.npz; returns the page.

  Args:
    folder: made where it is not there.
    facts: what the page says of run and command; `experiment` stands in the heading.
    view: what is shown.
  """
  path = epath.Path(os.path.expanduser(folder))
  path.mkdir(parents=True, exist_ok=True)
  pngs = [(name, to_png(figure)[0]) for name, figure in view.figures.items()]
  for name, png in pngs:
    write_bytes(path / f'{name}.png', png)
  if view.arrays:
    buffer = io.BytesIO()
    arrays: Any = dict(view.arrays)
    np.savez(buffer, **arrays)
    write_bytes(path / 'maps.npz', buffer.getvalue())
  title = f'{view.title} of {facts["experiment"]}'
  lead = ''.join(f'<p class="sub">{text(line)}</p>' for line in view.lead)
  body = (
    '<header><div class="over"><span>dlx · inspect</span></div>'
    f'<h1>{text(title)}</h1>{lead}</header>'
    + pictures(pngs)
    + ''.join(map(table, view.tables))
    + section('Run', f'<div class="card box">{pairs(list(facts.items()))}</div>')
  )
  page = document(title, body, 'Written by launch.inspect from a checkpoint.')
  write_bytes(path / 'report.html', page.encode())
  return os.fspath(path / 'report.html')
