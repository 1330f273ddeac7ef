"""Data sets by name: registry.py has all names, one module a kind reads them."""
