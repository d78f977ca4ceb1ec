"""Times any callable: its own calls, the calls of a program, and several callables side by side."""
