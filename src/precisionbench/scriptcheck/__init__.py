"""Runs a user's benchmark script under observation, and reports the problems found.

`check` does it all. `script_process` starts the script's process, in which `child` runs the script;
`clock_proxies`, `observer`, `torch_hooks`, `torch_patches` and `model_registry` record what happens
there in an `event_log`. The recorded `events` are data: `timed_regions` and `static_analysis` find
what was timed, `rules` detect `violations`, `notes` and `text` report. Only `observer` and what it
imports need torch.
"""
