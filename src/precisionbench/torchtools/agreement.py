"""How far two outputs differ, computed in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import attrs
import torch

from precisionbench.errors import one_line
from precisionbench.results import Agreement, TensorAgreement
from precisionbench.results.dtypes import dtype_name
from precisionbench.torchtools.global_state import threads
from precisionbench.torchtools.tensors import walk

# float64 copies are made of about this many elements at a time: they stay in a core's cache, where
# the passes over them are five times as fast as in memory.
_CHUNK_ELEMENTS = 1 << 16


def cpu_copies(output: object) -> dict[str, torch.Tensor]:
    """Copies on the CPU of every tensor in an output, by path, which later calls cannot change.

    Args:
        output: any nesting of tensors.
    """
    return {path: tensor.detach().to("cpu", copy=True) for path, tensor in walk(output)}


def compare_outputs(output: object, reference: object) -> Agreement:
    """Compare every tensor of an output with the reference's at the same place.

    Args:
        output: any nesting of tensors.
        reference: the same of the reference row.

    Returns:
        As `compare_tensors`.
    """
    return compare_tensors(dict(walk(output)), dict(walk(reference)))


def compare_tensors(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]
) -> Agreement:
    """Compare tensors with the reference's of the same path.

    One thread compares: others gain a tenth on an idle host, and where processes use its cores they
    wait for each other; 45 million elements then took a minute instead of 0.3 s.

    Args:
        ours: from `cpu_copies` of this row's output.
        theirs: from `cpu_copies` of the reference row's output.

    Returns:
        Figures for each pair of equal shape; missing tensors and other shapes are problems.
    """
    problems = [f"output{path} is missing" for path in theirs if path not in ours]
    problems += [f"output{path} is not in the reference" for path in ours if path not in theirs]
    tensors = []
    for path in (path for path in ours if path in theirs):
        try:
            own, other = _plain(ours[path]), _plain(theirs[path])
            if own.shape == other.shape:
                with threads(1):
                    tensors.append(_compare(path, own, other))
            else:
                shapes = f"{tuple(own.shape)}, the reference's {tuple(other.shape)}"
                problems.append(f"output{path} has shape {shapes}")
        except Exception as exc:  # tensors of a kind whose elements cannot be read
            problems.append(f"output{path} cannot be compared ({one_line(exc)})")
    return Agreement(tuple(tensors), tuple(problems))


def first_items(
    output: Mapping[str, torch.Tensor], batch_size: int, count: int
) -> dict[str, torch.Tensor]:
    """The first items of every tensor that holds a batch.

    Args:
        output: as for `compare_tensors`.
        batch_size: items that it holds.
        count: items to keep.
    """
    return {
        path: tensor[:count] if tensor.dim() and tensor.shape[0] == batch_size else tensor
        for path, tensor in output.items()
    }


def differs(agreement: Agreement, relative_l2: float) -> bool:
    """Whether two outputs differ by more than a relative error, or in anything else.

    Args:
        agreement: of the two outputs.
        relative_l2: the largest error that is tolerated.
    """
    return bool(
        agreement.problems
        or agreement.nonfinite_count
        or agreement.zero_references
        or (agreement.relative_l2 or 0) > relative_l2
    )


def relative_l2(error_squares: float, reference_squares: float) -> float | None:
    """||error|| / ||reference||; None where the reference is zero, or no float64 holds it.

    Args:
        error_squares: the sum of the squares of the differences.
        reference_squares: the sum of the squares of the reference.
    """
    ratio = error_squares / reference_squares if reference_squares else math.nan
    return math.sqrt(ratio) if math.isfinite(ratio) else None


def sum_of_squares(values: torch.Tensor) -> float:
    """The sum of the squares of all elements.

    Args:
        values: in float64.
    """
    return _sum_of_products(values, values)


def _sum_of_products(one: torch.Tensor, other: torch.Tensor) -> float:
    """As `torch.dot`, whose library uses threads for a few thousand elements already."""
    return float((one * other).sum())


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A dense, strided tensor of the same values, however they are stored."""
    if tensor.is_nested:
        return tensor.to_padded_tensor(0.0)
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


@attrs.define
class _Sums:
    """Running sums over chunks, from which all figures are computed."""

    error: float = 0.0
    own: float = 0.0
    reference: float = 0.0
    product: float = 0.0
    centred_error: float = 0.0
    centred_reference: float = 0.0
    max_abs_error: float = 0.0
    nonfinite: int = 0
    finite: int = 0

    def add(self, own: torch.Tensor, reference: torch.Tensor) -> None:
        """Add a chunk of shape (batch, columns)."""
        squares = sum_of_squares(own), sum_of_squares(reference)
        if math.isfinite(sum(squares)):  # so is every element: nothing has to be masked
            self.finite += own.numel()
        else:
            own, reference = self._masked(own, reference)
            squares = sum_of_squares(own), sum_of_squares(reference)
        self.own += squares[0]
        self.reference += squares[1]
        self.product += _sum_of_products(own, reference)
        error = own.sub_(reference)
        self.error += sum_of_squares(error)
        self.max_abs_error = max(
            self.max_abs_error, float(torch.linalg.vector_norm(error, math.inf))
        )
        if len(error) > 1:
            self.centred_error += sum_of_squares(error.sub_(error.mean(0)))
            self.centred_reference += sum_of_squares(reference.sub_(reference.mean(0)))

    def _masked(
        self, own: torch.Tensor, reference: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Count elements that are not finite in one of the two, and set them to zero in both."""
        same = (own == reference) | (own.isnan() & reference.isnan())
        both = own.isfinite() & reference.isfinite()
        self.nonfinite += int((~both & ~same).sum())
        self.finite += int(both.sum())
        return own.where(both, 0.0), reference.where(both, 0.0)


def _compare(path: str, own: torch.Tensor, reference: torch.Tensor) -> TensorAgreement:
    sums = _Sums()
    for pair in _chunks(own, reference):
        sums.add(*pair)
    if not math.isfinite(sums.error + sums.own + sums.reference):
        raise OverflowError("its squares do not fit into float64")
    batch = own.shape[0] if own.dim() else 1
    any_finite = sums.finite > 0
    return TensorAgreement(
        path=path,
        shape=tuple(own.shape),
        dtype=dtype_name(own.dtype),
        relative_l2=_relative_l2_or_zero(sums.error, sums.reference) if any_finite else None,
        cosine=_cosine(sums) if any_finite else None,
        batch_centred_relative_l2=(
            _relative_l2_or_zero(sums.centred_error, sums.centred_reference)
            if any_finite and batch > 1
            else None
        ),
        max_abs_error=sums.max_abs_error if any_finite else None,
        nonfinite_count=sums.nonfinite,
        top1=_top1(own, reference) if not sums.nonfinite else None,
    )


def _top1(own: torch.Tensor, reference: torch.Tensor) -> float | None:
    """The share of items with the same class; None where the reference has only one class."""
    if own.dim() != 2 or min(own.shape) < 2 or not own.is_floating_point():
        return None
    classes = reference.argmax(1)
    if len(classes.unique()) < 2:
        return None
    return float((own.argmax(1) == classes).double().mean())


def _chunks(
    own: torch.Tensor, reference: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Both tensors as float64 matrices of all the batch and some columns."""
    if not own.numel():
        return
    pair = [_matrix(own), _matrix(reference)]
    columns = max(1, _CHUNK_ELEMENTS // pair[0].shape[0])
    for start in range(0, pair[0].shape[1], columns):
        a, b = (_in_float64(matrix[:, start : start + columns]) for matrix in pair)
        yield a, b


def _in_float64(values: torch.Tensor) -> torch.Tensor:
    """A contiguous copy, also of what is in float64."""
    return values.to(torch.float64, copy=True, memory_format=torch.contiguous_format)


def _matrix(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.reshape(tensor.shape[0] if tensor.dim() else 1, -1)


def _relative_l2_or_zero(error_squares: float, reference_squares: float) -> float | None:
    """The relative L2 error, which is 0 where both tensors are zero."""
    return relative_l2(error_squares, reference_squares) if error_squares else 0.0


def _cosine(sums: _Sums) -> float | None:
    norms = math.sqrt(sums.own) * math.sqrt(sums.reference)
    if norms == 0:  # a zero vector has no direction
        return None
    return sums.product / norms
