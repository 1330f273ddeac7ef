"""Convolutional nets, transfer, ensembles."""
