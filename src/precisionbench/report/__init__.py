"""Renders results as text, Markdown, CSV and HTML."""
