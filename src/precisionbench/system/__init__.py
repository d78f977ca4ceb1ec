"""The machine: environment, NVML, telemetry, memory, CPU times and affinity."""
