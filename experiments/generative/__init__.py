"""Autoencoders and adversarial nets."""
