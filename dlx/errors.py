"""Errors that are the user's to mend: one line, no stack trace, exit status 2."""


class ConfigError(ValueError):
  """A value that cannot be: says field, value, what is allowed and the remedy.

  Launchers print it as one line and leave with status 2. Raise it before anything is
  compiled or written.
  """


class DataError(ConfigError):
  """Data that is missing, truncated or corrupt: names the file and the remedies."""


class StorageError(ConfigError):
  """A disk that is full, read-only or unreadable: names the path, what is kept and how
  to go on."""
