"""Flags: of launchers, of a Config, and the experiment that --exp names."""
