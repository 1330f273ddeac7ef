"""Look inside a trained model, and calculate what it costs before."""
