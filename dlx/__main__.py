"""The command lines by name: `dlx train ARGS` is `python -m launch.train ARGS`.

  dlx                  the commands and the experiments, a line each
  dlx NAME --help      what one of them does

`dlx` is also `python -m dlx`. Both work, too, where the current folder or an installed
package has the name `launch`.
"""

import difflib
import runpy
import sys

from dlx import beside
from dlx.commands import PACKAGE, commands, listing


def main() -> int:
  """Runs the command that is named first as `python -m` would; returns the status."""
  known = commands()
  name = sys.argv[1] if len(sys.argv) > 1 else '--help'
  if name in ('-h', '--help'):
    print(listing('dlx '))
    return 0
  if name not in known:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean {close[0]}?' if close else ''
    print(
      f'error: {name} is no command.{hint} Must be one of {", ".join(known)}.',
      file=sys.stderr,
    )
    return 2
  beside.claim(PACKAGE)
  del sys.argv[1]
  runpy.run_module(f'{PACKAGE}.{name}', run_name='__main__', alter_sys=True)
  return 0


if __name__ == '__main__':
  sys.exit(main())
