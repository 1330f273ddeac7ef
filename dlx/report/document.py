"""What all pages are built around: the self-contained document, and its pictures."""

import base64
import importlib.resources
from typing import Sequence

from dlx.report import chart
from dlx.report.markup import section, text


def document(title: str, body: str, footer: str) -> str:
  """A whole page with its styles and scripts; nothing is fetched from elsewhere.

  Args:
    title: of the window.
    body: HTML of all sections.
    footer: what wrote it.
  """
  files = importlib.resources.files('dlx.report')
  css, js = ((files / name).read_text('utf-8') for name in ('page.css', 'page.js'))
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Nothing is fetched, whatever a workdir holds.
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
    f'<title>{text(title)} · dlx</title><style>{css}</style></head>'
    f'<body data-geometry="{list(chart.GEOMETRY)}"><main>{body}'
    f'<footer>{text(footer)} Self-contained: nothing is loaded from elsewhere.</footer>'
    f'</main><dialog><img alt=""></dialog><script>{js}</script></body></html>\n'
  )


def pictures(
  images: Sequence[tuple[str, bytes]], texts: Sequence[tuple[str, str]] = ()
) -> str:
  """The section of figures: (name, PNG), and (name, text) of those that are texts."""
  out = []
  for name, png in images:
    width, height = _size(png)
    wide = ' wide' if width > 1.8 * height or len(images) == 1 else ''
    data = base64.b64encode(png).decode()
    label = _label(name)
    out.append(
      f'<figure class="card figure{wide}"><figcaption><h3>{text(label)}</h3>'
      f'</figcaption><img alt="{text(label)}" width="{width}" height="{height}" '
      f'style="height:auto" src="data:image/png;base64,{data}"></figure>'
    )
  for name, body in texts:
    out.append(
      f'<figure class="card figure wide"><figcaption><h3>{text(_label(name))}</h3>'
      f'</figcaption><pre><code>{text(body)}</code></pre></figure>'
    )
  return section('Figures', f'<div class="grid2">{"".join(out)}</div>' if out else '')


def _size(png: bytes) -> tuple[int, int]:
  """(width, height) in pixels out of a PNG's header; (1, 1) of anything else."""
  if png[:8] != b'\x89PNG\r\n\x1a\n' or len(png) < 24:
    return 1, 1
  return int.from_bytes(png[16:20], 'big'), int.from_bytes(png[20:24], 'big')


def _label(name: str) -> str:
  label = name.replace('_', ' ').replace('-', ' ')
  return label[:1].upper() + label[1:]
