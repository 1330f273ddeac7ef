"""Graph nets."""
