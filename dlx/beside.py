"""The packages that lie beside dlx, whatever else has their names.

`kernels`, `experiments` and `launch` are names that others use, too: a folder of the
current project, an installed package (Hugging Face's `kernels`).
"""

import importlib.machinery
import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def claim(name: str):
  """Makes `import NAME` find the package beside dlx first.

  Modules that only another package of that name has are still found, behind those that
  lie here. One that was imported before stays, and gains the modules that lie here.
  Where nothing of that name lies beside dlx, nothing changes.
  """
  spec = importlib.machinery.PathFinder.find_spec(name, [ROOT])
  if spec is None or spec.loader is None:
    return
  package = sys.modules.get(name)
  if package is None:
    other = importlib.machinery.PathFinder.find_spec(name)
    others = other and other.submodule_search_locations
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
  else:
    others = getattr(package, '__path__', None)
  package.__path__ = list(dict.fromkeys([os.path.join(ROOT, name), *(others or ())]))
