"""Errors that are the user's to mend: one line, no stack trace, exit status 2."""


class ConfigError(ValueError):
  """A value that cannot be: says field, value, what is allowed and the remedy.

  Launchers print it as one line and leave with status 2. Raise it before anything is
  compiled or written.
  """


class FieldError(ConfigError):
  """A field of a config, or of a group in one, whose value is not allowed.

  A group does not know in which field it stands: who builds it there says so by
  `within`, and the message names the whole flag.

  Attributes:
    owner: class of the config or group.
  """

  def __init__(self, owner: type, place: str, fault: str):
    super().__init__(f'{place}.{fault}')
    self.owner, self.fault = owner, fault

  def within(self, place: str) -> 'FieldError':
    """The same fault of an owner that stands at `place`, e.g. --config.judge."""
    return FieldError(self.owner, place, self.fault)


class DataError(ConfigError):
  """Data that is missing, truncated or corrupt: names the file and the remedies."""


class StorageError(ConfigError):
  """A disk that is full, read-only or unreadable: names the path, what is kept and how
  to go on."""


class NonFiniteError(FloatingPointError):
  """Training produced a NaN or inf; the message says where, and what was kept."""
