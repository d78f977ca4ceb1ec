"""Plugins are found by entry point, and a broken one harms no other."""

from __future__ import annotations

from pathlib import Path

import pytest

import precisionbench as pb
from precisionbench.backends import Backend, discovery
from precisionbench.errors import BackendUnavailableError, SpecError

GOOD = """
    from contextlib import contextmanager
    from typing import ClassVar
    import attrs
    from precisionbench.backends import Backend

    @attrs.frozen
    class Plain(Backend):
        "A plugin of ours."
        name: ClassVar[str] = "plain"

        @contextmanager
        def prepare(self, model, inputs):
            yield inputs.bind(model)

    class Elsewhere(Plain):
        name = "another-name"
"""


def info(name: str) -> discovery.BackendInfo:
    return discovery.describe(name)


@pytest.mark.slow
def test_the_built_ins_are_listed_with_their_options():
    names = [info.name for info in pb.list_backends()]
    assert names == sorted(names)
    assert {"apex-amp", "autocast", "compile", "eager", "half", "torch2trt"} <= set(names)
    assert info("half").available
    assert info("half").distribution == "precisionbench"
    assert info("half").options["dtype"] == "'float16' or 'bfloat16'"


def test_a_plugin_is_found_that_is_installed_beside_others_meanwhile(install):
    install("first-plugin", GOOD, plain="Plain")
    assert "plain" in discovery.installed()
    install("second-plugin", GOOD, later="Plain")
    assert {"plain", "later"} <= set(discovery.installed())


def test_a_third_party_plugin_is_listed_and_runs(install, cnn, images):
    install("strangers-plugin", GOOD, plain="Plain")
    assert info("plain").summary == "A plugin of ours."
    comparison = pb.compare(
        cnn, images, backends=["plain"], device="cpu", launcher="inline", budget_s=0.05
    )
    assert comparison["plain"].agreement.relative_l2 == 0


def test_a_plugin_that_does_not_import_is_named_with_its_error(install, cnn, images):
    install("broken-plugin", "import no_such_engine", broken="Backend")
    assert "No module named 'no_such_engine'" in info("broken").requirement
    assert "'broken-plugin'" in info("broken").remedy
    assert info("half").available
    comparison = pb.compare(
        cnn,
        images,
        backends=["broken:speed=9", "half"],
        device="cpu",
        launcher="inline",
        budget_s=0.05,
    )
    assert [row.backend for row in comparison.results] == ["eager", "half"]
    assert comparison.failures[0].backend == "broken:speed=9"
    assert comparison.failures[0].options == {"speed": "9"}
    with pytest.raises(BackendUnavailableError, match="no_such_engine"):
        comparison["broken:speed=9"]


def test_two_packages_with_one_name_are_an_error(install):
    install("first-plugin", GOOD, plain="Plain")
    install("second-plugin", GOOD, plain="Plain")
    with pytest.raises(SpecError, match="two packages bring a backend 'plain': .*-plugin and"):
        discovery.make("plain")
    assert not info("plain").available


def test_an_entry_point_that_is_no_backend_is_refused(install):
    install("odd-plugin", GOOD, odd="contextmanager")
    with pytest.raises(SpecError, match="'odd' of 'odd-plugin' is not a subclass of Backend"):
        discovery.make("odd")


def test_a_plugin_must_bear_the_name_it_is_registered_under(install):
    install("misnamed-plugin", GOOD, mine="Elsewhere")
    with pytest.raises(SpecError, match="has the name 'another-name'"):
        discovery.make("mine")


BROKEN = {
    "no name": ("class Mine(Backend):\n    prepare = None", "has the name None"),
    "an annotation that means nothing": (
        "@attrs.frozen\nclass Mine(Backend):\n    name: ClassVar[str] = 'mine'\n"
        "    speed: Unheard = 1\n    prepare = None",
        "cannot be read (NameError: name 'Unheard' is not defined)",
    ),
    "a check of its own": (
        "@attrs.frozen\nclass Mine(Backend):\n    name: ClassVar[str] = 'mine'\n"
        "    prepare = None\n    def __attrs_post_init__(self): raise ValueError('not today')",
        "mine refuses these options (ValueError: not today)",
    ),
    "an option without default": (
        "@attrs.frozen(kw_only=True)\nclass Mine(Backend):\n    name: ClassVar[str] = 'mine'\n"
        "    speed: int\n    prepare = None",
        "write it as option=value",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_faulty_plugin_does_not_affect_others(install, case):
    code, message = BROKEN[case]
    header = "from __future__ import annotations\nfrom typing import ClassVar\nimport attrs\n"
    header += "from precisionbench.backends import Backend\n"
    install("wrong-plugin", header + code, mine="Mine")
    listed = info("mine")
    assert not listed.available
    assert info("half").available
    with pytest.raises(SpecError) as caught:
        discovery.make("mine")
    assert message in str(caught.value)
    assert message in f"{listed.requirement}; {listed.remedy}"


def test_a_backend_object_without_a_name_is_refused(cnn, images):
    class Nameless(Backend):
        prepare = None

    with pytest.raises(SpecError, match="Nameless has no name that a spec could begin with"):
        Nameless()


def test_names_come_from_metadata_without_importing(install):
    install("lazy-plugin", "raise SystemExit('imported')", lazy="Backend")
    assert "lazy" in discovery.installed()


def test_the_example_plugin_is_eight_lines():
    """`half` is the example in the documentation; it must stay as small as it is praised for."""
    source = Path(discovery.__file__).with_name("half.py").read_text()
    body = source[source.index("    @contextmanager") :].strip().splitlines()
    assert len(body) <= 8
