"""Command lines: the only place with flags."""
