"""Text as numbers: vocabularies."""
