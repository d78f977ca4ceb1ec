"""Checks what this machine can measure, and how much noise there is.

`examine` does it all: `machine_readings` measures in this process, and `noise_trials` compares the
models of `workloads` with themselves in fresh processes. `readings` holds what was measured,
`checks` turns it into checks with a state and a remedy, `text` prints them; these need no torch.
"""
