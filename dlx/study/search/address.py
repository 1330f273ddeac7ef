"""Address of a database, without its password; and text without any password."""

import re
from typing import NamedTuple, Sequence
import urllib.parse

from dlx.errors import ConfigError

VARIABLE = 'DLX_STORAGE_PASSWORD'
_HIDDEN = '***'
_IN_URL = re.compile(r'(://[^:/?#\s]*):.*@', re.DOTALL)
_IN_WORDS = re.compile(r'(password[^=\s]*=)[^&\s]+', re.IGNORECASE)


class Address(NamedTuple):
  """Where a database is.

  Attributes:
    url: for SQLAlchemy, without a password.
    password: or None: what libpq finds by itself ($PGPASSWORD, ~/.pgpass).
    told: for messages and records.
    is_server: whether it is a server, not a file.
  """

  url: str
  password: str | None
  told: str
  is_server: bool


def parse(text: str, password: str | None = None) -> Address:
  """The address that a text stands for.

  Args:
    text: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:///PATH, a file that
      processes of one machine share. USER, PASSWORD, HOST and PORT may be left out; a
      HOST that is a folder of sockets stands as ?host=/FOLDER.
    password: in place of one in the text.

  Raises:
    ConfigError: any other text; the message has no password.
  """
  wrong = ConfigError(
    f'--storage={hidden(text)} is not allowed: must be '
    'postgresql://USER@HOST:PORT/DATABASE, with :PASSWORD behind USER, in '
    f'${VARIABLE} or in the file of --storage_password_file; or sqlite:///PATH.'
  )
  scheme, mark, rest = text.partition('://')
  if not mark or re.search(r'[\s#]', text):
    raise wrong
  if scheme == 'sqlite':
    if not rest.startswith('/') or len(rest) < 2:
      raise wrong
    return Address(text, None, text, False)
  if scheme not in ('postgresql', 'postgres', 'postgresql+psycopg'):
    raise wrong
  before, _, query = rest.partition('?')
  place, _, database = before.partition('/')
  user, at, host = place.rpartition('@')
  user, _, own = user.partition(':')
  names = {name for name, _ in urllib.parse.parse_qsl(query)}
  if not database or '@' in database or (at and not user) or 'password' in names:
    raise wrong
  told = f'{user}{at}{host}/{database}{f"?{query}" if query else ""}'
  if password is None and own:
    password = urllib.parse.unquote(own)
  return Address(f'postgresql+psycopg://{told}', password, f'postgresql://{told}', True)


def hidden(text: str) -> str:
  """A text in which no password of a URL can be read."""
  return _IN_WORDS.sub(rf'\1{_HIDDEN}', _IN_URL.sub(rf'\1:{_HIDDEN}@', text))


def without_password(argv: Sequence[str]) -> list[str]:
  """The words of a command, for its record."""
  path = '--storage_password_file='
  return [word if word.startswith(path) else hidden(word) for word in argv]
