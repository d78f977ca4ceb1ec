"""Claims in results: recorded in new files, and for files of before from one table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args, get_origin

import attrs
import pytest

from made_up_results import comparison_data
from precisionbench.backends import Backend, discovery
from precisionbench.backends.base import alternatives, option_types, options_of
from precisionbench.errors import SpecError
from precisionbench.results import Claims, json_format
from precisionbench.results.earlier_claims import claims_of, earlier_claims

BUILT_INS = ("eager", "half", "autocast", "compile", "apex-amp", "torch2trt")
# Values to try of options that allow any.
VALUES: dict[str, tuple[Any, ...]] = {
    "fp32_layers": (None, "head"),
    "dla_core": (None, 0),
    "engine_cache": (None, "engines"),
    "calibration": (None, "data:batches"),
    "batch_size": (None, 8),
    "threads": (None, 1),
    "workspace_bytes": (1 << 30,),
}


def allowed(name: str, hint: Any) -> tuple[Any, ...]:
    """Every value of a closed type; a few of an open one."""
    if name in VALUES:
        return VALUES[name]
    found: list[Any] = []
    for member in alternatives(hint):
        if get_origin(member) is Literal:
            found += get_args(member)
        else:
            found += {bool: [False, True], type(None): [None]}[member]
    return tuple(found)


def every_row_of(backend: type[Backend]) -> Iterator[Backend]:
    """Every combination of a backend's own options, and each value of the common ones."""
    hints = option_types(backend)
    common = [field.name for field in attrs.fields(Backend)]
    own = {name: allowed(name, hint) for name, hint in hints.items() if name not in common}
    combinations = [
        dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())
    ]
    others = [{name: value} for name in common for value in allowed(name, hints[name])]
    for options in (*combinations, *others):
        try:
            yield backend(**options)
        except SpecError:  # options that exclude each other
            continue


@pytest.mark.parametrize("name", BUILT_INS)
def test_what_a_built_in_backend_claims_is_what_the_table_for_older_files_says(name):
    rows = list(every_row_of(discovery.load(name)))
    assert len(rows) > 10
    for backend in rows:
        assert backend.claims() == earlier_claims(name, options_of(backend)), backend


def test_a_row_without_recorded_claims_is_written_again_without_them():
    text = json_format.to_json(comparison_data())
    assert all("claims" not in row for row in json.loads(text)["results"])
    assert json_format.to_json(json_format.from_json(text)) == text


def test_recorded_claims_are_loaded_again_and_count_before_the_table():
    claims = Claims(dtype="float64", engine="mine", packages=("numpy",))
    data = comparison_data()
    row = attrs.evolve(data.results[0], claims=claims)
    data = attrs.evolve(data, results=(row, *data.results[1:]))
    loaded = json_format.from_json(json_format.to_json(data))
    assert loaded == data
    assert claims_of(loaded.results[0]) == claims
    assert claims_of(loaded.results[1]).dtype == "float16"


def test_a_backend_without_claims_of_its_own_claims_what_its_options_say():
    @attrs.frozen
    class Plain(Backend):
        name: ClassVar[str] = "plain"
        dtype: str = "bf16"

        def prepare(self, model, inputs):
            raise AssertionError

    claims = Plain().claims()
    assert (claims.dtype, claims.engine, claims.packages) == ("bfloat16", "", ())
    assert claims == earlier_claims("plain", options_of(Plain()))
