"""Convolutions, attention, LSTMs and products by oneDNN for JAX on an x86-64 Linux CPU.

Optional, and built on request:

pip install -e '.[onednn]'
python -m kernels.onednn        compiles it; DLX_ONEDNN=off leaves it unused
"""
