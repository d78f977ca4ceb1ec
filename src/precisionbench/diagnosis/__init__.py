"""Why a number is what it is: pure functions of what was measured; no torch, no GPU."""
