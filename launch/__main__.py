"""Lists the command lines and the experiments: python -m launch."""

import sys

from dlx import commands


def main() -> int:
  """Prints the list; 2 where a word was given: the name belongs to the module."""
  if sys.argv[1:] and sys.argv[1] not in ('-h', '--help'):
    known = ', '.join(commands.commands())
    print(
      f'error: {sys.argv[1]!r} is not read: write python -m launch.NAME, with one of '
      f'{known}.',
      file=sys.stderr,
    )
    return 2
  print(commands.listing('python -m launch.'))
  return 0


if __name__ == '__main__':
  sys.exit(main())
