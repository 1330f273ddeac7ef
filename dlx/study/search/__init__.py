"""Search for the best config: spaces, samplers, storage, and the sweep itself."""

SEARCHES = ('grid', 'random', 'halving', 'tpe', 'cmaes')
