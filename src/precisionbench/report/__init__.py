"""Results for people: text and Markdown."""
