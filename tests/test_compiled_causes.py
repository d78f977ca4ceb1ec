"""Causes in compiled rows: where they are found, and look-alikes in which they are not."""

from __future__ import annotations

import attrs
import pytest

from made_up_results import CAST, CLEAN, H100, comparison, conv, evidence, findings, other
from precisionbench.diagnosis.diagnose import diagnosis_of
from precisionbench.diagnosis.findings import FindingStatus
from precisionbench.results import Passes
from precisionbench.results.evidence import COMPILED_GRAPH, Operation

OPTIONS = {"dtype": "float32", "memory_format": "contiguous"}
NO_PASSES = (Passes(), Passes())


def compiled(*operations, times_s=(1.02e-3, 0.35e-3), gpu=H100, passes=NO_PASSES, **details):
    """A row of `compile` beside eager float32."""
    row = {"name": "compile", "options": OPTIONS, "details": {"graphs": 1, **details}}
    seen = evidence(*operations)
    base = CLEAN["base"]
    return comparison(base, seen, half_row=row, times_s=times_s, gpu=gpu, passes=passes)


def in_graph(time_s: float) -> Operation:
    operation = conv(time_s)
    return attrs.evolve(operation, parents=(*operation.parents, COMPILED_GRAPH))


def outside(time_s: float) -> Operation:
    return other("aten::mul", CAST, time_s, ("float32",))


def on_cpu(name: str, time_s: float) -> Operation:
    return Operation(name, "", (), 1.0, time_s)


def host(enqueue_s: float, device_s: float = 0.01e-3) -> Passes:
    return Passes(device_s=(device_s,) * 5, enqueue_s=(enqueue_s,) * 5)


# graph breaks


def test_the_share_of_time_outside_of_compiled_graphs_is_stated():
    reasons = ["Failed to trace builtin operator: print"]
    data = compiled(in_graph(0.3e-3), outside(0.1e-3), graph_breaks=1, graph_break_reasons=reasons)
    (found,) = findings(data, "graph-breaks")
    assert found.evidence[0].value == pytest.approx(0.25)
    assert found.factor.high == pytest.approx(4 / 3)
    assert found.reason == reasons[0]


@pytest.mark.parametrize(
    "data",
    [
        # a break between two long graphs costs nothing
        compiled(in_graph(0.34e-3), outside(0.01e-3), graph_breaks=1),
        # one graph, without a break, beside work that the model leaves to eager PyTorch
        compiled(in_graph(0.1e-3), outside(0.2e-3), graph_breaks=0),
        # files of earlier versions do not name the graphs
        compiled(conv(0.3e-3), outside(0.1e-3), graph_breaks=1),
    ],
    ids=["free", "none", "unnamed"],
)
def test_breaks_that_cost_nothing_are_no_finding(data):
    assert findings(data, "graph-breaks") == []


def test_a_row_that_compiled_nothing_is_counted_with_its_reason():
    data = compiled(conv(), graphs=0, skipped_frames=1, skip_reasons=["graph break in loop"])
    (found,) = findings(data, "graph-breaks")
    assert found.status is FindingStatus.CONFIRMED
    assert found.reason == "graph break in loop"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        (
            "Skip inlining `torch.compiler.disable()`d function: Skip inlining function <function "
            "Net.f at 0x7f766ef86340> since it was wrapped with `torch.compiler.disable`",
            "remove torch.compiler.disable",
        ),
        ("Unsupported Tensor.item() call with capture_scalar_outputs=False", "replace .item()"),
        ("Data dependent operator: `aten._local_scalar_dense.default`", "replace .item(), .tolist"),
        ("Data-dependent branching: Detected data-dependent branching", "torch.where"),
        ("Dynamic shape operator: `aten.nonzero.default`'s output shape", "by masks"),
        ("torch.jit.script/freeze modules unsupported", "replace scripted modules"),
        ("trace builtin operator `print` with argument types", "remove print"),
        ("Failed to convert args/kwargs to proxy", "remove what breaks the graph"),
    ],
)
def test_the_remedy_is_that_of_the_reason_and_names_no_address(reason, remedy):
    """An address differs in each process, and files of earlier versions hold some."""
    data = compiled(in_graph(0.2e-3), outside(0.2e-3), graph_breaks=1, graph_break_reasons=[reason])
    (found,) = findings(data, "graph-breaks")
    assert remedy in found.remedy
    assert found.remedy.count("fullgraph=true") == 1
    label = diagnosis_of(data).labels[1]
    assert "0x" not in found.reason + label.reason


def test_rows_of_other_engines_have_no_graphs_to_break():
    assert findings(comparison(**CLEAN, half_row={"details": {"graphs": 0}}), "graph-breaks") == []


# recompilation


def test_a_row_that_still_compiles_after_the_warm_up_is_confirmed():
    data = compiled(
        on_cpu("dynamo (dynamo_timed)", 0.9),
        on_cpu("aten::addmm", 0.1),
        times_s=(0.01, 1.0),
        gpu=None,
        recompilations=19,
        calls_until_compiled=20,
        still_compiling=True,
        recompile_reasons=["8/0: self.calls == 0"],
    )
    (found,) = findings(data, "recompilation")
    shares = {number.name: number.value for number in found.evidence if number.unit == "share"}
    assert shares["time in compiling"] == pytest.approx(0.9, rel=0.01)
    assert shares["time beyond that of eager"] == pytest.approx(0.99, rel=0.01)
    assert found.reason == "8/0: self.calls == 0"


def test_a_second_compilation_for_dynamic_shapes_is_normal():
    settled = compiled(in_graph(0.3e-3), recompilations=1, still_compiling=False)
    assert findings(settled, "recompilation") == []


# short calls


@pytest.mark.parametrize(
    ("passes", "is_found"),
    [
        ((host(0.02e-3), host(0.05e-3)), True),
        # compiling saves launches, so the host needs less time
        ((host(0.2e-3), host(0.05e-3)), False),
        # the GPU takes longer than the host
        ((host(0.02e-3, 0.3e-3), host(0.05e-3, 0.3e-3)), False),
        # of a long call the checks are a detail
        ((host(2e-3), host(3e-3)), False),
        # not measured
        (NO_PASSES, False),
    ],
    ids=["short", "fewer-launches", "device-bound", "long", "unknown"],
)
def test_a_compiled_call_that_takes_the_host_longer_is_short(passes, is_found):
    data = compiled(in_graph(0.01e-3), passes=passes)
    assert bool(findings(data, "short-compiled-calls")) == is_found


def short_on_cpu(around_s: float, eager_s: float = 15e-6):
    return compiled(
        on_cpu("Torch-Compiled Region: 0/0", around_s / 2),
        on_cpu("TorchDynamo Cache Lookup", around_s / 2),
        on_cpu(COMPILED_GRAPH, 30e-6 - around_s),
        times_s=(eager_s, 30e-6),
        gpu=None,
    )


def test_on_a_cpu_the_profile_shows_what_the_checks_take():
    (found,) = findings(short_on_cpu(12e-6), "short-compiled-calls")
    assert found.evidence[-1].value == pytest.approx(0.4, rel=0.01)
    assert found.factor.high == pytest.approx(2, rel=0.01)  # as fast as eager
    assert found.proposed == ""
    assert found.alternatives == ("larger-batch",)
    assert "CUDA graph" not in found.remedy  # a CPU has none


def test_slow_compiled_code_is_not_blamed_on_the_checks():
    assert findings(short_on_cpu(3e-6), "short-compiled-calls") == []


def test_a_short_call_that_compiling_made_faster_pays():
    assert findings(short_on_cpu(12e-6, eager_s=60e-6), "short-compiled-calls") == []
