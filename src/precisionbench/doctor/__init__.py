"""What this machine can measure, how well, and what stands in the way: the A/A self-test.

`readings` holds what was measured, `checks` turns it into lines with a verdict and a remedy,
`examining` measures. Only the last one needs torch.
"""
