"""Checks what this machine can measure, and how much noise there is.

`readings` holds what was measured, `checks` turns it into lines with a verdict and a remedy,
`examine` measures. Only the last one needs torch.
"""
