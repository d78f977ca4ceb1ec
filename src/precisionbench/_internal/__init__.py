"""Helpers without a subject of their own: files, imports by name, captured output, interrupts."""
