"""How things work, from scratch: one lesson a file, in the order of README.md."""
