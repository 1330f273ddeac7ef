"""From what people have to a set of their own: what `python -m launch.data` calls."""
