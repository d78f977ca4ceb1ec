"""Which rows to measure: from specs and objects to named rows and their reference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import attrs

from precisionbench.backends import Backend, discovery
from precisionbench.backends.base import options_of
from precisionbench.backends.inductor import has_toolchain
from precisionbench.backends.specs import canonical_spec
from precisionbench.errors import (
    ENDS_OF_RUN,
    BackendUnavailableError,
    PrecisionBenchError,
    PreparationError,
    SpecError,
    one_line,
    text_of,
)
from precisionbench.results.claims import Claims
from precisionbench.results.json_values import Json
from precisionbench.spec_syntax import row_names, same_row, split_label, split_spec

# Measured where the user names no backends: a decision about the product, so lists and no attribute
# of backends. Those that a machine cannot run become failures with a reason. `compile` is not among
# them: compiling for a GPU takes longer than all of them together. On a CPU there are others.
DEFAULT_BACKENDS = (
    "eager",
    "eager:precision=tf32",
    "half",
    "half:dtype=bfloat16",
    "half:memory_format=channels_last",
    "autocast",
    "apex-amp",
    "torch2trt:precision=fp16",
)
# On a CPU: bfloat16 first, which more CPUs compute quickly than float16. TF32, Apex AMP and
# TensorRT need a GPU. Autocast is to bfloat16: to float16 it would be slow wherever `half` is.
_CHANNELS_LAST = "half:dtype=bfloat16,memory_format=channels_last"
_COMPILED = "compile"
_ON_A_CPU = (
    "eager",
    "half:dtype=bfloat16",
    _CHANNELS_LAST,
    "autocast:dtype=bfloat16",
    _COMPILED,
    "half",
)


# What a user gives for the rows to measure.
Backends = Sequence["str | Backend"] | Mapping[str, "str | Backend"]


@attrs.frozen
class Row:
    """One row to measure.

    Attributes:
        name: the row's name.
        spec: its canonical spec.
        backend: what to prepare; None where its plugin could not be imported.
        error: why it could not.
        claims: what the backend says of the row; None where it could not be imported.
        label: the user's name for the row; may be empty.
        may_be_left_out: leave it out where its first call takes too long, because the user has
            not asked for it.
        model: name of its model, where there are several; else empty.
    """

    name: str
    spec: str
    backend: Backend | None
    error: PrecisionBenchError | None = None
    claims: Claims | None = None
    label: str = ""
    may_be_left_out: bool = False
    model: str = ""

    @property
    def identity(self) -> dict[str, Json]:
        """Fields that identify the row in results; without a plugin, the options as in the spec."""
        name, texts = split_spec(self.spec)
        options = texts if self.backend is None else options_of(self.backend)
        label = {"label": self.label} if self.label else {}
        model = {"model": self.model} if self.model else {}
        return {"backend": self.name, "name": name, "options": options, **label, **model}

    def require_backend(self) -> Backend:
        """The backend of the row.

        Raises:
            PrecisionBenchError: why its plugin could not be imported.
        """
        if self.backend is None:
            raise self.error or SpecError(f"{self.name} has no backend")
        return self.backend


def default_backends(
    device_type: str,
    has_images: bool = True,
    can_compile: Callable[[str], bool] = has_toolchain,
) -> tuple[str, ...]:
    """The specs that are measured where the user names none.

    Args:
        device_type: such as `cuda`; on a `cpu` there are other rows than elsewhere.
        has_images: whether an input has four or five dimensions, so that layouts matter.
        can_compile: whether there is what `torch.compile` needs on a type of device.

    Returns:
        Specs, in the order in which to show them.
    """
    if device_type != "cpu":
        return DEFAULT_BACKENDS
    left_out = set() if has_images else {_CHANNELS_LAST}
    left_out |= set() if can_compile(device_type) else {_COMPILED}
    return tuple(spec for spec in _ON_A_CPU if spec not in left_out)


def plan_default(
    device_type: str,
    has_images: bool,
    reference: str | Backend = "eager",
    make: Callable[[str | Backend], Backend] = discovery.make,
) -> tuple[list[Row], str]:
    """The rows to measure where the user names none, and the name of the reference.

    On a CPU a row other than the reference may be left out; see `FirstCallLimit`. The reference is
    first there, because its calls decide which rows are too slow.

    Args:
        device_type: as for `default_backends`.
        has_images: as for `default_backends`.
        reference: as for `plan`.
        make: as for `plan`.

    Raises:
        SpecError: the reference cannot be understood.
    """
    rows, base = plan(default_backends(device_type, has_images), reference, make)
    if device_type != "cpu":
        return rows, base
    marked = [attrs.evolve(row, may_be_left_out=row.name != base) for row in rows]
    return sorted(marked, key=lambda row: row.name != base), base


def plan(
    backends: Backends,
    reference: str | Backend = "eager",
    make: Callable[[str | Backend], Backend] = discovery.make,
) -> tuple[list[Row], str]:
    """The rows to measure, and the name of the reference.

    A spec whose plugin cannot be imported is kept and becomes a failure with its reason.

    Args:
        backends: specs, `label=spec`, and objects, in the order in which to show them; or a mapping
            of labels to specs and objects.
        reference: spec, label or object; put first where it is not among them.
        make: makes a backend of a spec.

    Raises:
        SpecError: a spec that cannot be understood, a bare string for `backends`, or a label that
            is not of one row alone.
    """
    made = [attrs.evolve(_row(one, make), label=label) for label, one in _labelled(backends)]
    labelled = next((row for row in made if row.label and row.label == reference), None)
    base = labelled or _row(reference, make)
    if base.spec not in [row.spec for row in made]:
        made.insert(0, base)
    names = row_names(row.spec for row in made)
    rows = [_named(row, name) for name, row in zip(names, made, strict=True)]
    _check_labels(rows)
    return rows, rows[made.index(labelled)].name if labelled else base.spec


def _named(row: Row, name: str) -> Row:
    """The row with its name, and without a label that says the same."""
    return attrs.evolve(row, name=name, label="" if row.label == name else row.label)


def _labelled(backends: Backends) -> list[tuple[str, str | Backend]]:
    """What the user gave for each row, after its label."""
    if isinstance(backends, (str, Backend)):
        raise SpecError(f"backends is {backends!r}", f"give a list: [{backends!r}]")
    if isinstance(backends, Mapping):
        return [(text_of(label), backend) for label, backend in backends.items()]
    if not isinstance(backends, Iterable):
        raise SpecError(f"backends is {backends!r}", "give a list of specs or Backend objects")
    return [split_label(one) if isinstance(one, str) else ("", one) for one in backends]


def first_backend(backends: Backends) -> str | Backend:
    """What the user gave for the first row; `"eager"` without any.

    Args:
        backends: as for `plan`.

    Raises:
        SpecError: as `plan`.
    """
    return next((one for _, one in _labelled(backends)), "eager")


def _check_labels(rows: Sequence[Row]) -> None:
    """Refuse a label that is not a word, or that also names another row."""
    for row in filter(lambda row: row.label, rows):
        if set(":,=#") & set(row.label):
            raise SpecError(f"the label {row.label!r} is not a word", "use one such as 'fast'")
        if others := [other.name for other in rows if other is not row and _is_named(other, row)]:
            raise SpecError(
                f"the label {row.label!r} of {row.name} is also a name of {others[0]}",
                "give each row a different label",
            )


def _is_named(row: Row, other: Row) -> bool:
    """Whether the label of another row names this one."""
    options = row.identity["options"]
    assert isinstance(options, Mapping)
    return other.label == row.label or same_row(other.label, row.name, options)


def _row(backend: str | Backend, make: Callable[[str | Backend], Backend] = discovery.make) -> Row:
    try:
        made = make(backend)
    except BackendUnavailableError as exc:  # the others may still be measured
        return Row("", str(backend), None, exc)
    spec = _spec_of(made)
    try:
        return Row("", spec, made, claims=_claims(made))
    except PreparationError as exc:
        return Row("", spec, None, exc)


def _spec_of(backend: Backend) -> str:
    try:
        options_of(backend)  # for the result
        return canonical_spec(backend)
    except (PrecisionBenchError, *ENDS_OF_RUN):
        raise
    except BaseException as exc:  # options of a class of the plugin's own
        raise SpecError(
            f"the options of {backend.name} cannot be written as a spec ({one_line(exc)})",
            f"ask the author of {backend.name}",
        ) from exc


def _claims(backend: Backend) -> Claims:
    try:
        claims = backend.claims()
    except ENDS_OF_RUN:
        raise
    except BaseException as exc:
        raise PreparationError(
            f"the claims of {backend.name} cannot be read ({one_line(exc)})",
            f"ask the author of {backend.name}",
        ) from exc
    if not isinstance(claims, Claims):
        raise PreparationError(
            f"the claims of {backend.name} are {text_of(claims, 300)}",
            "return a precisionbench.backends.Claims",
        )
    return claims


def packages_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Packages whose versions to record: of the default backends always, and of these rows.

    Args:
        rows: to be measured.

    Returns:
        Names of distributions.
    """
    claimed = [row.claims for row in (*_default_rows(), *rows) if row.claims]
    return tuple(dict.fromkeys(name for claims in claimed for name in claims.packages))


def _default_rows() -> Iterator[Row]:
    for spec in DEFAULT_BACKENDS:
        with contextlib.suppress(SpecError):  # two packages bring a backend of this name
            yield _row(spec)
