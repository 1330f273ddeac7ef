"""One file, one experiment. Copy one, change it, launch it."""
