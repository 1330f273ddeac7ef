"""Errors that are the user's to mend: one line, no stack trace, exit status 2."""

import errno

# What a disk, or a path on it, has against a run: the only list of them.
DISK = {
  errno.ENOSPC: 'the disk is full',
  errno.EDQUOT: 'the quota is used up',
  errno.EFBIG: 'the file would be too large',
  errno.EROFS: 'the file system is read-only',
  errno.EACCES: 'permission denied',
  errno.EPERM: 'permission denied',
  errno.EIO: 'the disk reports an error',
  errno.ESTALE: 'the file server has lost the file',
  errno.ENAMETOOLONG: 'the path is too long',
  errno.ELOOP: 'its links go round in a circle',
  errno.ENOTDIR: 'a part of the path is no folder',
  errno.EISDIR: 'a folder lies where a file should',
}


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
