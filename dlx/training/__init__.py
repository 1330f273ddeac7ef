"""The host-side run: state, step builders, sharding, loop, checkpoints, records."""
