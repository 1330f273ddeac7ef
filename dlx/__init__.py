"""dlx: deep learning, classical and modern, as JAX experiments to fork and launch.

Arrays carry their shape in their names, `name_DIMS`, one capital letter a dimension:

  B batch       L length (tokens)   D model width   F hidden width of an MLP
  H height      W width             C channels      K classes or head width
  N examples    M members or micro-batches          T time       V vocabulary

Importing this package imports nothing else; take the modules by name.
"""

import importlib

from dlx import beside

beside.claim('kernels')


def __getattr__(name: str):
  if name == 'train':  # A package that can be called.
    return importlib.import_module('dlx.train')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def trained(*args, **options):
  """What `dlx.train(...)` does: see `dlx.runs.train`."""
  from dlx.runs import train

  return train(*args, **options)


def open(workdir, *, step: int | str = 'latest', exp=None, trust=False, data_dir=None):
  """A run of a workdir: its config, metrics and weights, and what its model can do.

  The workdir may have been moved, and no data is needed. See `dlx.run.opened.Run`.

  Args:
    workdir: of a run; may be an object store.
    step: of the checkpoint: 'latest', 'best' or a number.
    exp: where the experiment is now: a name, the path of a file, or a module with
      `Config` and `build`. None: as the run says.
    trust: whether code that lies in the workdir may run: the copy of a fork that is
      not at hand as it was. dlx's own experiments need no trust.
    data_dir: where a vocabulary is read that neither run nor experiment keeps.

  Raises:
    ConfigError: no run is there.
  """
  from dlx.run.opened import Run

  return Run(workdir, step=step, exp=exp, trust=trust, data_dir=data_dir)
