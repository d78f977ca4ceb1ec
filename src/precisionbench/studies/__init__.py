"""Studies: many comparisons of models, batches, threads and devices in one folder of results."""
