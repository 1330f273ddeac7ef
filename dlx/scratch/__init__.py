"""Lessons: how a thing works, in one page of code that a test proves right."""
