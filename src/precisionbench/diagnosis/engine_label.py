"""Whether the engine that a row claims ran it: compiled graphs, CUDA graphs and providers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import attrs

from precisionbench.diagnosis.compiled import works_outside
from precisionbench.diagnosis.facts import Facts
from precisionbench.diagnosis.findings import Indicator, Label
from precisionbench.diagnosis.parts import is_matrix
from precisionbench.results.earlier_claims import claims_of
from precisionbench.results.json_values import Json
from precisionbench.safe_text import without_addresses

# Below this share of the time a deviation is a detail; from the other on the label is false.
DETAIL, MOST = 0.05, 0.5
ENGINE = "engine"
_SEVERITY = ("true", "unknown", "partly", "false")
# What a backend records of CUDA graphs that torch did not use begins with this word.
_SKIPPED = "skipped"


@attrs.frozen
class _Deviation:
    """How a row deviates from the engine that it claims.

    Attributes:
        claim: the engine, or the feature of it.
        verdict: `false` or `partly`.
        ran: how it ran instead.
        says: the evidence.
    """

    claim: str
    verdict: str
    ran: str
    says: str


def with_engine(label: Label, facts: Facts) -> Label:
    """A label that also holds what is known of the row's engine.

    Args:
        label: of the row's precision.
        facts: of the row.

    Returns:
        The label, with the worse of both verdicts. One of a wrong precision stays as it is and
        names the engine as well.
    """
    checks = (_uncompiled, _without_cuda_graphs, _elsewhere, _unquantised)
    for found in (deviation for check in checks for deviation in check(facts)):
        label = _with_deviation(label, found)
    return label


def _with_deviation(label: Label, found: _Deviation) -> Label:
    wrong_so_far = [label.engine or label.claim, label.ran] if label.is_wrong else ["", ""]
    labelled, ran = (
        " and ".join(filter(None, texts))
        for texts in zip(wrong_so_far, (found.claim, found.ran), strict=True)
    )
    return attrs.evolve(
        label,
        verdict=max(label.verdict, found.verdict, key=_SEVERITY.index),
        engine=labelled,
        ran=ran,
        witnesses=(*label.witnesses, Indicator(ENGINE, found.says, True)),
        reason="",
    )


def _uncompiled(facts: Facts) -> Iterator[_Deviation]:
    """A row that records compiled graphs, and has none, or does most of its work outside."""
    graphs = facts.row.details.get("graphs")
    if not isinstance(graphs, int):
        return
    engine = claims_of(facts.row).engine or facts.row.name
    share = facts.evidence.compiled_share
    was_profiled = facts.row.evidence is not None and facts.evidence.calls > 0
    if graphs == 0 and not (was_profiled and not facts.busy_s):  # else there was nothing to do
        says = f"no graph was compiled{_breaks(facts)}"
        yield _Deviation(engine, "false", "in eager PyTorch", says)
    elif graphs and share is not None and 1 - share > DETAIL and works_outside(facts):
        verdict, ran = ("partly", "") if 1 - share < MOST else ("false", "mostly ")
        says = (
            f"{1 - share:.0%} of the profiled time is outside of the {graphs} compiled "
            f"{'graph' if graphs == 1 else 'graphs'}{_breaks(facts)}"
        )
        yield _Deviation(engine, verdict, f"{ran}in eager PyTorch", says)


def _breaks(facts: Facts) -> str:
    """The graph breaks and skipped functions of a row with their first reasons, in brackets."""
    found = (
        _counted(facts.row.details, "graph_breaks", "graph_break_reasons", "graph break"),
        _counted(facts.row.details, "skipped_frames", "skip_reasons", "skipped function"),
    )
    return f" ({', '.join(filter(None, found)) or 'no graph break was recorded'})"


def _counted(details: Mapping[str, Json], count: str, reasons: str, name: str) -> str:
    """What TorchDynamo counted, with the first reason; empty where it counted nothing."""
    number, known = details.get(count), details.get(reasons)
    if not isinstance(number, int) or not number:
        return ""
    first = f": {without_addresses(str(known[0]))}" if isinstance(known, list) and known else ""
    return f"{number} {name}{'s' if number > 1 else ''}{first}"


def _without_cuda_graphs(facts: Facts) -> Iterator[_Deviation]:
    """A row that asks for CUDA graphs which its engine skipped.

    Tuned kernels are what a mode that tunes brings to a CPU, so that its label stays.
    """
    claims, graphs = claims_of(facts.row), facts.row.details.get("cuda_graphs")
    if not claims.cuda_graphs or not str(graphs).startswith(_SKIPPED):
        return
    if claims.autotuned and not facts.on_gpu:
        return
    verdict = "partly" if facts.evidence.graph_launches else "false"
    says = f"CUDA graphs were {str(graphs).replace(': ', ' (', 1)})"
    yield _Deviation("CUDA graphs", verdict, "without CUDA graphs", says)


def _elsewhere(facts: Facts) -> Iterator[_Deviation]:
    """A row whose engine did not run matmuls or convolutions, or operators, where it claims to.

    A provider that fuses a part of a model reports it as one layer, so that the share of the rest
    is not known, and the label is false only where the provider ran nothing at all. A row that
    counts the operators of its model is false from half of them on.
    """
    asked = str(facts.row.details.get("provider") or "")
    places = Counter(o.place for o in facts.row.engine_operations if o.place and is_matrix(o))
    operators = _operators_by_place(facts)
    if not asked or not (_others(places, asked) or _share(operators, asked) > DETAIL):
        return
    ran = operators.get(asked) or any(o.place == asked for o in facts.row.engine_operations)
    worst = max(_share(places, asked), _share(operators, asked)) if operators else 0.0
    names = " and ".join({**_others(places, asked), **_others(operators, asked)})
    counted = ((places, "matmuls and convolutions"), (operators, "operators"))
    parts = [
        f"{sum(_others(found, asked).values())} of {sum(found.values())} {what}"
        for found, what in counted
        if _others(found, asked)
    ]
    verdict = "partly" if ran and worst < MOST else "false"
    yield _Deviation(asked, verdict, f"by {names}", f"{names} ran {' and '.join(parts)}")


def _operators_by_place(facts: Facts) -> dict[str, int]:
    """How many operators of the model each place runs; empty where the row does not count them."""
    counted = facts.row.details.get("operators")
    found = counted if isinstance(counted, Mapping) else {}
    return {place: number for place, number in found.items() if isinstance(number, int) and number}


def _others(counts: Mapping[str, int], asked: str) -> dict[str, int]:
    return {place: count for place, count in counts.items() if place != asked}


def _share(counts: Mapping[str, int], asked: str) -> float:
    """The share that ran elsewhere; 0 where nothing is counted."""
    return sum(_others(counts, asked).values()) / sum(counts.values()) if counts else 0.0


def _unquantised(facts: Facts) -> Iterator[_Deviation]:
    """A row whose weights are stored in another dtype than claimed, by their own tensors."""
    wanted, shares = claims_of(facts.row).weights, facts.row.details.get("weight_shares")
    if not wanted:
        return
    known = shares if isinstance(shares, dict) else {}
    others = {d: s for d, s in known.items() if d != wanted and isinstance(s, (int, float))}
    share = sum(others.values())
    claim = f"{wanted} weights"
    if not known:
        says = "no weights of matmuls or convolutions were recorded"
        yield _Deviation(claim, "false", f"without {claim}", says)
    elif share > DETAIL:
        found = " and ".join(f"{part:.0%} in {dtype}" for dtype, part in others.items())
        verdict = "partly" if share < MOST else "false"
        names = facts.row.details.get("float_layer_names")
        first = f" (the first: {names[0]})" if isinstance(names, list) and names else ""
        yield _Deviation(claim, verdict, f"with {found}", f"weights are {found}{first}")
