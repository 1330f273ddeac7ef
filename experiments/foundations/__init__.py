"""Perceptrons, linear classifiers, multilayer perceptrons, belief nets."""
