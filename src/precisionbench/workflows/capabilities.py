"""What the rows that `ladder` and `tune` measure depend on."""

from __future__ import annotations

from precisionbench.backends.rungs import Capabilities
from precisionbench.measure import availability
from precisionbench.model.workload import Workload
from precisionbench.reference_data.peaks import device_of
from precisionbench.results.dtypes import compute_capability
from precisionbench.system.environment import capture


def capabilities_of(workload: Workload) -> Capabilities:
    """The capabilities of this machine for a workload.

    Args:
        workload: the model and inputs.
    """
    gpu = capture(workload.device).gpu
    known = device_of(gpu) if gpu else None
    capability = compute_capability(gpu.compute_capability) if gpu else (0, 0)
    unavailable = [info for info in availability.list_backends() if not info.available]
    dlas = known.peaks.get("dlas") if known else None
    return Capabilities(
        device=workload.device.type,
        capability=capability,
        has_images=workload.info.has_images,
        batch_size=workload.info.batch_size,
        missing={info.name: f"requires {info.requirement}; {info.remedy}" for info in unavailable},
        broken=tuple(info.name for info in unavailable if not info.options),
        dlas=int(dlas.value) if dlas else 0,
    )
