"""Where examples come from, and batch = f(seed, step)."""
