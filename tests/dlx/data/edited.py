"""A card with other words in it, as a stranger may send one."""

import json
from typing import Any, Callable

from dlx.data.sets import cards


def edited(card: cards.Card, change: Callable[[dict[str, Any]], Any]):
  """Rewrites card.json of a set: `change` gets what it holds."""
  assert card.folder is not None
  path = card.folder / cards.FILE
  text = json.loads(path.read_text())
  change(text)
  path.write_text(json.dumps(text))
