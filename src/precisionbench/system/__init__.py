"""The machine: environment, NVML, telemetry, memory and CPU affinity."""
