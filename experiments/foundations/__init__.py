"""Linear classifiers and multilayer perceptrons."""
