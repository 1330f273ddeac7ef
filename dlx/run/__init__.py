"""The host side of a run: the loop, programs, evaluations, checkpoints, records."""
