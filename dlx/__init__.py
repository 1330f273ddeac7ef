"""dlx: deep learning, classical and modern, as JAX experiments to fork and launch.

Arrays carry their shape in their names, `name_DIMS`, one capital letter a dimension:

  B batch       L length (tokens)   D model width   F hidden width of an MLP
  H height      W width             C channels      K classes or head width
  N examples    M members or micro-batches          T time       V vocabulary

Importing this package imports nothing else; take the modules by name.
"""

from dlx import beside

beside.claim('kernels')
