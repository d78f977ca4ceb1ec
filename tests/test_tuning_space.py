"""What `tune` tries, and what it leaves out with which reason."""

from __future__ import annotations

import re

import pytest

from precisionbench.backends.half import Half
from precisionbench.backends.rungs import Capabilities, Stage
from precisionbench.errors import BackendNotFoundError, SpecError
from precisionbench.spec_syntax import split_spec
from precisionbench.workflows.tuning.arguments import checked_sizes
from precisionbench.workflows.tuning.space import (
    Facts,
    Family,
    Space,
    has_tuned_kernels,
    matches,
    space,
)

ENGINES = dict.fromkeys(
    ("onnxruntime", "openvino", "torch2trt", "torch-tensorrt", "apex-amp"),
    "requires what this test does not have",
)
GPU = Facts(Capabilities("cuda", (9, 0), True, 8, ENGINES), True)
CPU = Facts(Capabilities("cpu", (0, 0), True, 8, ENGINES), True)
FLAT = Facts(Capabilities("cpu", (0, 0), False, 8, ENGINES), False)


def specs_of(found: Space) -> list[str]:
    return [spec for family in found.families for spec in family.first]


def reasons(found: Space) -> dict[str, str]:
    return {one.what: one.reason for one in found.left_out}


def test_precisions_and_layouts_are_combined():
    wanted = {
        "half",
        "half:memory_format=channels_last",
        "half:dtype=bfloat16",
        "half:dtype=bfloat16,memory_format=channels_last",
    }
    assert wanted <= set(specs_of(space(GPU)))


def test_families_that_are_cheap_to_prepare_come_first():
    stages = [family.stage for family in space(GPU).families]
    assert stages == sorted(stages)
    assert stages[0] is Stage.PRECISION


def test_it_is_small_enough_to_be_read():
    assert len(specs_of(space(GPU))) <= 30


def test_channels_last_is_left_out_without_images():
    found = space(FLAT)
    assert not [spec for spec in specs_of(found) if "channels_last" in spec]
    assert reasons(found)["memory_format=channels_last"] == "no input has 4 or 5 dimensions"


def test_batch_norms_are_folded_only_where_there_are_some():
    assert {"fold_batch_norm": True} in family(space(GPU), "half").then
    assert {"fold_batch_norm": True} not in family(space(FLAT), "half").then
    assert reasons(space(FLAT))["fold_batch_norm=true"] == "the model has no batch norm"


def test_cuda_graphs_and_tf32_need_a_gpu():
    assert {"cuda_graph": True} in family(space(GPU), "half").then
    assert {"cuda_graph": True} not in family(space(CPU), "half").then
    assert "eager:precision=tf32" in specs_of(space(GPU))
    assert "eager:precision=tf32" not in specs_of(space(CPU))


def test_a_missing_engine_is_left_out_with_what_it_requires():
    assert reasons(space(GPU))["openvino"] == "requires what this test does not have"


def test_a_refined_spec_keeps_its_options_and_adds_one():
    refined = family(space(GPU), "compile").refined("compile:dtype=float16,freezing=true")
    assert "compile:dtype=float16,mode=reduce-overhead,freezing=true" in refined
    assert all(split_spec(spec)[1].get("dtype") == "float16" for spec in refined)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("compile", False),
        ("compile:mode=reduce-overhead", False),
        ("compile:mode=max-autotune", True),
        ("compile:mode=max-autotune-no-cudagraphs,dtype=float16", True),
        ("aot-inductor:max_autotune=true", True),
        ("torchao:compile=true", False),
        ("half", False),
    ],
)
def test_backends_say_which_configurations_have_tuned_kernels(spec, expected):
    assert has_tuned_kernels(spec) == expected


def test_claims_that_cannot_be_read_say_nothing_of_kernels(monkeypatch):
    monkeypatch.setattr(Half, "claims", lambda _: 1 / 0)
    has_tuned_kernels.cache_clear()
    assert not has_tuned_kernels("half")
    has_tuned_kernels.cache_clear()


def test_tuned_kernels_are_a_further_option_that_can_be_left_out():
    options = ({"freezing": True}, {"max_autotune": True})
    family = Family("aot-inductor", Stage.ENGINE, ("aot-inductor",), options)
    frozen, tuned = family.refined("aot-inductor")
    assert (has_tuned_kernels(frozen), has_tuned_kernels(tuned)) == (False, True)
    assert family.refined("aot-inductor", with_tuned=False) == (frozen,)


def test_a_combination_that_the_backend_refuses_is_no_refinement():
    graphed = "compile:dtype=float16,mode=reduce-overhead,freezing=true"
    assert not [s for s in family(space(GPU), "compile").refined(graphed) if "cuda_graph" in s]


def test_other_batch_sizes_are_those_that_are_asked_for_and_not_the_given_one():
    assert space(Facts(GPU.capabilities, True, (8, 32))).at_batches("half") == [
        "half:batch_size=32"
    ]
    assert space(GPU).at_batches("half") == []


def test_include_restricts_to_backends():
    assert {split_spec(spec)[0] for spec in specs_of(space(CPU, include=["half"]))} == {"half"}


def test_include_restricts_to_a_spec_and_adds_one_that_is_not_in_the_space():
    found = specs_of(space(CPU, include=["half:dtype=bfloat16,cudnn_benchmark=true"]))
    assert found == ["half:dtype=bfloat16,cudnn_benchmark=true"]


def test_exclude_leaves_out_what_has_the_options():
    found = space(CPU, exclude=["half:memory_format=channels_last", "compile"])
    names = specs_of(found)
    assert "half" in names
    assert not [spec for spec in names if spec.startswith("compile")]
    assert not [s for s in names if s.startswith("half") and "channels_last" in s]
    assert reasons(found)["compile"] == "it is excluded"


def test_an_excluded_spec_is_no_refinement_and_no_other_batch_either():
    pattern = "eager:memory_format=channels_last,fold_batch_norm=true"
    found = space(CPU, include=["eager"], exclude=[pattern])
    (family,) = found.families
    assert "eager:fold_batch_norm=true" in family.refined("eager")
    assert pattern not in family.refined("eager:memory_format=channels_last")
    sizes = Facts(CPU.capabilities, True, (2, 4))
    found = space(sizes, exclude=["half:batch_size=4"])
    assert found.at_batches("half") == ["half:batch_size=2"]
    assert found.at_batches("eager") == ["eager:batch_size=2", "eager:batch_size=4"]


def test_including_what_is_not_installed_gives_the_reason():
    with pytest.raises(SpecError, match=r"nothing is left to try \(openvino: requires what this"):
        space(CPU, include=["openvino"])


def test_an_excluded_option_is_no_refinement_either():
    found = space(CPU, exclude=["compile:freezing=false"])
    assert {"freezing": False} not in family(found, "compile").then


def test_an_unknown_backend_is_refused_with_a_suggestion():
    with pytest.raises(BackendNotFoundError, match="include: there is no backend 'hlaf'"):
        space(CPU, include=["hlaf"])


def test_iterators_are_read_once():
    found = space(CPU, include=iter(["half"]), exclude=iter(["half:memory_format=channels_last"]))
    assert found == space(CPU, include=["half"], exclude=["half:memory_format=channels_last"])
    assert checked_sizes(iter([1, 8])) == (1, 8)


@pytest.mark.parametrize("argument", ["include", "exclude"])
@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (5, "5; give a list, such as ['half']"),
        (b"half", "b'half'; give a list, such as ['half']"),
        ("half", "'half'; give a list: ['half']"),
    ],
)
def test_what_is_no_list_of_specs_is_refused(argument, given, remedy):
    with pytest.raises(SpecError, match=re.escape(f"{argument} is {remedy}")):
        space(CPU, **{argument: given})


@pytest.mark.parametrize(
    ("given", "remedy"),
    [("18", "'18'; give a list, such as [1, 8, 32]"), (8, "8; give a list: [8]")],
)
def test_what_is_no_list_of_batch_sizes_is_refused(given, remedy):
    with pytest.raises(SpecError, match=re.escape(f"batch_sizes is {remedy}")):
        checked_sizes(given)


@pytest.mark.parametrize("empty", [[], (), iter(())])
def test_an_empty_include_leaves_nothing_to_try(empty):
    with pytest.raises(SpecError, match="include is empty, .* or leave it out to try all"):
        space(CPU, include=empty)


def test_nothing_left_is_an_error():
    with pytest.raises(SpecError, match="nothing is left to try"):
        space(CPU, include=["half"], exclude=["half"])


@pytest.mark.parametrize(
    ("spec", "pattern", "expected"),
    [
        ("half", "half", True),
        ("half:dtype=bfloat16", "half", True),
        ("half", "half:dtype=float16", True),  # the default
        ("half:dtype=bfloat16", "half:dtype=float16", False),
        ("compile", "half", False),
    ],
)
def test_a_pattern_fits_what_has_its_options(spec, pattern, expected):
    assert matches(spec, pattern) is expected


def family(found: Space, name: str):
    return next(one for one in found.families if one.backend == name)
