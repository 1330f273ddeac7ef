"""Several answers or weights as one: ensembles, views, temperature, averages, soups."""
