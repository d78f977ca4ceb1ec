"""Whether two runs are comparable: the conditions in which they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from precisionbench.display import Shown
from precisionbench.errors import IncomparableError
from precisionbench.results import BackendResult, ComparisonData, WorkloadInfo
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.json_values import Json

_MOST_SHOWN = 8


@attrs.frozen(repr=False)
class Mismatch(Shown):
    """Something that differs between two runs and can change times.

    Attributes:
        field: name of the condition.
        old: its value in the older run.
        new: its value in the newer run.
    """

    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.field} ({self.old} before, {self.new} now)"


def mismatches(old: ComparisonData, new: ComparisonData) -> tuple[Mismatch, ...]:
    """Every condition in which two runs differ and that can change times.

    The seed, Python's patch release, and packages that no common row's backend depends on are left
    out.

    Args:
        old: the run to compare with.
        new: the run to judge.
    """
    packages = _packages(old, new)
    found = _unequal(_conditions(old, packages), _conditions(new, packages))
    return (*found, *_of_rows(old, new))


def hardware_mismatches(old: ComparisonData, new: ComparisonData) -> tuple[Mismatch, ...]:
    """The differences between the devices of two runs, whatever they measured there.

    Args:
        old: the run to compare with.
        new: the run to judge.
    """
    return tuple(_unequal(_hardware(old), _hardware(new)))


def software_mismatches(old: ComparisonData, new: ComparisonData) -> tuple[Mismatch, ...]:
    """The differences between the versions of two runs, whatever they measured.

    Args:
        old: the run to compare with.
        new: the run to judge.
    """
    packages = _packages(old, new)
    return tuple(_unequal(_software(old, packages), _software(new, packages)))


def _unequal(before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Mismatch]:
    for field, value in before.items():
        if value != now.get(field):
            yield Mismatch(field, _text(value), _text(now.get(field)))


def _text(value: object) -> str:
    return "none" if value is None else str(value)


def _conditions(data: ComparisonData, packages: list[str]) -> dict[str, object]:
    return {
        **_workload(data),
        **_hardware(data),
        "threads": data.environment.threads,
        **_software(data, packages),
    }


def _workload(data: ComparisonData) -> dict[str, object]:
    return {
        **_of_workload(data.workload),
        **{
            f"{what} of {name}": value
            for name, info in data.models.items()
            for what, value in _of_workload(info).items()
        },
        "schedule": data.schedule,
        "shared cores": data.shared_cores,
    }


def _hardware(data: ComparisonData) -> dict[str, object]:
    environment, gpu = data.environment, data.environment.gpu
    return {
        "GPU": gpu.name if gpu else None,
        "multiprocessors": gpu.multiprocessors if gpu else None,
        "power limit": f"{gpu.power_limit_w:.0f} W" if gpu and gpu.power_limit_w else None,
        "power mode": environment.power_mode,
        "CPU": environment.cpu,
        "CPU cores": environment.cpu_cores,
    }


def _software(data: ComparisonData, packages: list[str]) -> dict[str, object]:
    environment, gpu = data.environment, data.environment.gpu
    return {
        "driver": gpu.driver if gpu else None,
        "Jetson release": environment.jetson,
        "platform": environment.platform,
        "Python": ".".join(environment.python.split(".")[:2]),
        "torch": environment.torch,
        "CUDA": environment.cuda,
        "cuDNN": environment.cudnn,
        "precisionbench": data.precisionbench,
        **{name: environment.packages.get(name) for name in packages},
    }


def _of_workload(workload: WorkloadInfo) -> dict[str, object]:
    inputs = (
        f"{t.path or 'input'} {'x'.join(map(str, t.shape))} {t.dtype}" for t in workload.inputs
    )
    return {
        "model": workload.model,
        "parameters": workload.parameters,
        "inputs": ", ".join(inputs),
        "batch size": workload.batch_size,
    }


def _packages(old: ComparisonData, new: ComparisonData) -> list[str]:
    """Packages besides torch that the rows of both runs, or the model of one, depend on."""
    before, now = _packages_by_backend(old), _packages_by_backend(new)
    common = sorted(before.keys() & now.keys())
    needed = [package for name in common for package in now[name] if package in before[name]]
    models = [info.model for data in (old, new) for info in (data.workload, *data.models.values())]
    if any(model.startswith("torchvision:") for model in models):
        needed.append("torchvision")
    return needed


def _packages_by_backend(data: ComparisonData) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in data.results:
        known = found.get(row.name, ())
        found[row.name] = tuple(dict.fromkeys((*known, *claims_of(row).packages)))
    return found


def _of_rows(old: ComparisonData, new: ComparisonData) -> Iterator[Mismatch]:
    before = {row.backend: row for row in old.results}
    for row in new.results:
        if row.backend in before:
            yield from _of_row(before[row.backend], row)


def _of_row(old: BackendResult, new: BackendResult) -> Iterator[Mismatch]:
    name = new.backend
    yield from _differing(f"options of {name}", old.options, new.options)
    yield from _differing(f"torch settings of {name}", old.flags, new.flags)
    clocks = old.measurement.clock, new.measurement.clock
    if clocks[0] != clocks[1]:
        yield Mismatch(f"clock of {name}", *clocks)


def _differing(what: str, old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Mismatch]:
    for key in {**old, **new}:
        if key in old and key in new and old[key] != new[key]:
            yield Mismatch(f"{what}: {key}", _text(old[key]), _text(new[key]))


def refuse(found: tuple[Mismatch, ...]) -> None:
    """Raise an error that names what differs, if anything does.

    Args:
        found: the result of `mismatches`.

    Raises:
        IncomparableError: something differs.
    """
    if not found:
        return
    shown = ", ".join(map(str, found[:_MOST_SHOWN]))
    more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    raise IncomparableError(
        f"the two runs differ in {shown}{more}",
        "measure both under the same conditions, or compare them anyway with force (--force)",
    )
