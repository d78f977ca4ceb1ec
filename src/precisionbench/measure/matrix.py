"""Rows of several models and batch sizes: their names, and which row each is compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from precisionbench.backends import Backend, discovery
from precisionbench.backends.specs import canonical_spec
from precisionbench.errors import BackendUnavailableError, SpecError, did_you_mean
from precisionbench.measure.rows import Row
from precisionbench.spec_syntax import ALIASES, row_of_model, split_model

MakeBackend = Callable[[str | Backend], Backend]
# Plans the rows of one model at one batch size, as `rows.plan`; from the reference.
PlanRows = Callable[[str | Backend], tuple[list[Row], str]]


@attrs.frozen
class Matrix:
    """What each row of a comparison is measured for.

    Attributes:
        models: names of the models; empty where there is one without a name.
        batch_sizes: items in one call; empty for what the inputs and the backends say.
    """

    models: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether each row is measured once."""
        return not self.models and not self.batch_sizes


@attrs.frozen
class PlannedRows:
    """Rows, and which row each is compared with.

    Attributes:
        rows: in the order in which to show them.
        reference: the row that others are compared with.
        references: rows that are compared with another row, by name, and that row.
    """

    rows: Sequence[Row]
    reference: str
    references: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def all_references(self) -> set[str]:
        """All rows that others are compared with."""
        return {self.references.get(row.name, self.reference) for row in self.rows}


def plan_matrix(
    reference: str | Backend,
    matrix: Matrix,
    plan_rows: PlanRows,
    first: str | Backend = "eager",
    make: MakeBackend = discovery.make,
) -> PlannedRows:
    """The rows of all models and batch sizes.

    Each row is compared with the reference of its own model and batch size, unless the reference
    names a model, a batch size, or both.

    Args:
        reference: as for `compare`.
        matrix: the models and batch sizes.
        plan_rows: plans the rows of one model at one batch size from their reference.
        first: the backend of the first row, which a reference that is only a model begins with.
        make: makes a backend of a spec.

    Raises:
        SpecError: the reference or a row cannot be measured for this matrix.
    """
    if matrix.is_single:
        rows, base = plan_rows(reference)
        return PlannedRows(rows, base)
    wanted = _Reference.of(reference, matrix, make)
    rows, base = plan_rows(first if wanted.backend is None else wanted.backend)
    return _expanded(rows, base, wanted, matrix)


@attrs.frozen
class _Reference:
    """What a row is compared with.

    Attributes:
        backend: None for the row's own.
        model: empty for the row's own.
        batch_size: None for the row's own.
    """

    backend: str | Backend | None
    model: str = ""
    batch_size: int | None = None

    @classmethod
    def of(cls, given: str | Backend, matrix: Matrix, make: MakeBackend) -> _Reference:
        model = ""
        if isinstance(given, str) and matrix.models:
            if given in matrix.models:
                return cls(None, given)
            model, given = split_model(given)
            if model and model not in matrix.models:
                known = did_you_mean(model, matrix.models)
                raise SpecError(f"the reference names the model {model!r}", known)
        if not matrix.batch_sizes:
            return cls(given, model)
        backend, batch_size = _without_batch(given, make)
        if batch_size not in (None, *matrix.batch_sizes):
            raise SpecError(
                f"the reference has the batch size {batch_size}, which is not measured",
                f"add it to the batch sizes {', '.join(map(str, matrix.batch_sizes))}",
            )
        return cls(backend, model, batch_size)


def _without_batch(given: str | Backend, make: MakeBackend) -> tuple[str | Backend, int | None]:
    """A backend without the batch size that it names, and that size."""
    if isinstance(given, str) and ":" not in given:  # which may also be a label
        return given, None
    with contextlib.suppress(BackendUnavailableError):
        made = make(given)
        if made.batch_size is not None:
            return attrs.evolve(made, batch_size=None), made.batch_size
    return given, None


_Cell = tuple[str, str, "int | None"]  # model, name of the row, batch size


def _expanded(rows: Sequence[Row], base: str, reference: _Reference, matrix: Matrix) -> PlannedRows:
    cells: dict[_Cell, Row] = {
        (model, row.name, size): _of_model(_sized(row, size), model)
        for model in matrix.models or ("",)
        for row in rows
        for size in matrix.batch_sizes or (None,)
    }
    compared = {
        cell.name: cells[
            reference.model or model,
            name if reference.backend is None else base,
            reference.batch_size or size,
        ].name
        for (model, name, size), cell in cells.items()
    }
    common, references = next(iter(compared.values())), set(compared.values())
    others = {name: found for name, found in compared.items() if found != common}
    return PlannedRows([_kept(row, references) for row in cells.values()], common, others)


def _kept(row: Row, references: Iterable[str]) -> Row:
    """The row; one that others are compared with is never left out."""
    return attrs.evolve(row, may_be_left_out=False) if row.name in references else row


def _sized(row: Row, size: int | None) -> Row:
    """The row at a batch size."""
    if size is None:
        return row
    number, label = row.name[len(row.spec) :], f"{row.label}-{size}" if row.label else ""
    if row.backend is None:  # its plugin could not be imported
        spec = f"{row.spec}{',' if ':' in row.spec else ':'}batch_size={size}"
        return attrs.evolve(row, name=spec + number, spec=spec, label=label)
    if row.backend.batch_size is not None:
        raise SpecError(
            f"{row.name} has a batch size of its own, and several batch sizes were given",
            "leave out one of them",
        )
    backend = attrs.evolve(row.backend, batch_size=size)
    spec = canonical_spec(backend)
    return attrs.evolve(row, name=spec + number, spec=spec, backend=backend, label=label)


def _of_model(row: Row, model: str) -> Row:
    return attrs.evolve(
        row,
        name=row_of_model(model, row.name),
        label=row_of_model(model, row.label),
        model=model,
    )


def check_model_names(names: Sequence[str]) -> None:
    """Refuse names of models that have a meaning of their own in the name of a row.

    Args:
        names: of several models.

    Raises:
        SpecError: which name cannot be used, and why.
    """
    for name in names:
        if not name.strip() or set(":,=#/") & set(name) or name != name.strip():
            raise SpecError(
                f"a model cannot have the name {name!r}", "use a word such as 'old' or 'v2'"
            )
        if name in ALIASES or name in discovery.installed():
            raise SpecError(
                f"the model's name {name!r} is also the name of a backend", "use another name"
            )
