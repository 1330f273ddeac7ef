"""Convolutions of oneDNN for JAX on an x86-64 Linux CPU: optional, built on request.

pip install -e '.[onednn]'
python -m kernels.onednn        compiles it; DLX_ONEDNN=off leaves it unused
"""
