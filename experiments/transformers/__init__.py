"""Transformers for text and images."""
