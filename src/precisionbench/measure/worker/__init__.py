"""Where a prepared backend lives while it is timed: in a worker process, or in this one."""
