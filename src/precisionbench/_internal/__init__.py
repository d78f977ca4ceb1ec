"""Small tools without a subject of their own: files, imports, captured output, interrupts."""
