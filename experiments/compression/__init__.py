"""Small models from large ones."""
