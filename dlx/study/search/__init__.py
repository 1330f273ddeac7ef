"""Search for the best config: spaces, samplers, storage, and the sweep itself."""
