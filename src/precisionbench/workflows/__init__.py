"""What chains comparisons: diagnosis with experiments, and the ladder."""
