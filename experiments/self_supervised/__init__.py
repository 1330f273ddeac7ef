"""Features without labels, and what they are worth."""
