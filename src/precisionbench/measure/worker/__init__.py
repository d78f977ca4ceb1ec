"""Where a prepared backend lives while it is timed: in this process, or in a worker process."""
