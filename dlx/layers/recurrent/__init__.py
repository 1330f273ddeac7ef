"""Recurrent layers: cells, their unrolling in time, stacks over padded rows."""
