"""Regression and classification of tables."""
