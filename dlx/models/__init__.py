"""One architecture family a file; no training code, no data."""
