"""What labels of rows claim about the precision: pure functions of text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum

from precisionbench.scriptcheck.events import LoopValue

FLOAT32 = re.compile(r"(?<![a-z0-9])(fp32|float32|f32|(full|single)[ _-]precision)(?![a-z0-9])")
HALF = re.compile(
    r"(?<![a-z0-9])(bf16|bfloat16|fp16|float16|f16|autocast|amp|(half|mixed)[ _-]precision)"
    r"(?![a-z0-9])"
)
_NO_ROW = (  # a ratio of two rows, or a file
    r"/|\.\w+$|(?<![a-z])(vs|versus|over|speed|ratio|gain|faster|slower|relative|factor)"
)
# Text with one of these names another precision, or no row.
NOT_FLOAT32_ALONE = re.compile(
    r"16|half|autocast|mixed|int8|fp8|tf32|quant|(?<![a-z])amp(?![a-z])|" + _NO_ROW
)
NOT_HALF_ALONE = re.compile(
    r"(float|fp|f|int)(32|64)|single|double|full|int8|fp8|quant|fake|emulat|simulat|(?<![a-z])(no|not|off|without|disabled?|false|error)"
    r"(?![a-z])|(?<![a-z])(acc|diff)|" + _NO_ROW
)
# Variables of loops by whose values people name rows, and others that name a part of a model.
_NAMES_ROW = re.compile(
    r"name|label|prec|dtype|mode|conf|cfg|tag|title|key|variant|setting|method|row|kind|case|desc"
    r"|text|run|^[a-z]$|amp|autocast|half|[fb](loat|p)?(16|32)"
)
_NAMES_PART = re.compile(
    r"acc|master|weight|kv|cache|state|optim|grad|param|stor|out|inp|(?<![a-z])in(?![a-z])|comm"
    r"|matmul|loss|norm|file|path|ref|from|to_"
)


class Claim(Enum):
    """The precision that a label claims."""

    FLOAT32 = "float32"
    HALF = "half precision"


def claim_of(texts: Iterable[str]) -> Claim | None:
    """What a row claims whose labels are all of these; None where they claim nothing or more.

    Args:
        texts: labels, such as `fp32` or `t_bf16`.
    """
    low = [text.lower().replace("_", " ") for text in texts]
    for claim, pattern, other in (
        (Claim.FLOAT32, FLOAT32, NOT_FLOAT32_ALONE),
        (Claim.HALF, HALF, NOT_HALF_ALONE),
    ):
        if any(map(pattern.search, low)) and not any(map(other.search, low)):
            return claim
    return None


def claim_of_loops(values: Iterable[LoopValue]) -> tuple[LoopValue, Claim] | None:
    """What the variables of the loops around a timing claim, with the variable that does so.

    Args:
        values: of the variables.
    """
    values = list(values)
    texts = [text for value in values for text in _texts(value)]
    claim = claim_of(texts)
    for value in values:
        names_row = _NAMES_ROW.search(value.name.lower()) and not _NAMES_PART.search(
            value.name.lower()
        )
        if claim and names_row and claim_of([*_texts(value)]) is claim:
            return value, claim
    return None


def _texts(value: LoopValue) -> list[str]:
    """The texts of a variable; a switch that is on counts by its name."""
    if value.text == "True":
        return [value.name]
    return ["off"] if value.text == "False" else [value.text]
