"""Reports to try things on, and what a parser sees of them."""

from __future__ import annotations

import html.parser
import json
import random

import attrs

from made_up_results import CAST, FP32_CONV, HALF_CONV, LAYOUT, comparison, conv, evidence, layer
from precisionbench.report.html.page import to_html
from precisionbench.results import Block, ComparisonData, DeviceState, Preparation, json_format
from precisionbench.results.evidence import Evidence, Kernel, LayerError, Tensor

RECORDED = ("autocast", "channels-25", "channels-50", "depthwise")
# The names that a stranger's model could have.
HOSTILE = (
    "<script>document.title='owned'</script>",
    "\"' onmouseover='document.title=1' x=\"",
    "</script></title></svg><img src=x onerror=document.title='owned'>",
    "שלום.עולם.مرحبا",
    "\u202eevil\u2066 turned",
    "🙂👩‍👩‍👧 \x00\x07 \ud800",
    "&lt;b&gt; {{ 7*7 }} ${7*7} <!-- ",
    "verylong." * 1111,
)
LEDGER = (
    ("the float32 row was not float32", "measured", 1.47, 1.42, 1.52),
    ("half precision", "measured", 2.75, 2.6, 2.9),
    ("a larger batch", "derived", 1.1, 1.0, 1.2),
    ("other clocks", "measured", 0.93, None, None),
    ("INT8", "assumed", 1.6, 1.3, 1.9),
    ("unexplained", "unexplained", 1.02, 0.7, 1.4),
)


def hostile() -> ComparisonData:
    """A comparison whose model, rows, layers, kernels and sentences try to inject markup."""
    seen = [_hostile_evidence(dtype, kernel) for dtype, kernel in _PRECISIONS]
    found = comparison(*seen)
    eager, half = found.results
    half = attrs.evolve(
        half, backend=HOSTILE[2], warnings=HOSTILE, log=HOSTILE, details={HOSTILE[0]: HOSTILE[1]}
    )
    failures = tuple(
        attrs.evolve(found.failures[0], backend=f"failed {name}", reason=name, remedy=name)
        for name in HOSTILE
    )
    workload = attrs.evolve(found.workload, model=" ".join(HOSTILE))
    return attrs.evolve(
        found, workload=workload, results=(eager, half), failures=failures, notes=HOSTILE
    )


_PRECISIONS = (("float32", FP32_CONV), ("float16", HALF_CONV))


def _hostile_evidence(dtype: str, kernel: str) -> Evidence:
    names = [f"{n}.{name}" for n, name in enumerate(HOSTILE)]
    operations = [
        conv(1e-4, dtype, kernel, channels=50, layer=name, extra=(Kernel(name, 1.0, 1e-5),))
        for name in names
    ]
    layers = tuple(attrs.evolve(layer(name, 50, dtype=dtype), kind=name) for name in names)
    errors = tuple(LayerError(name, 1e-4, 3.2, 0, 3.3) for name in ["", *names])
    return evidence(*operations, layers=layers, errors=errors)


def large(rows: int = 8, layers: int = 1000) -> ComparisonData:
    """A comparison of many rows of a model with many layers."""
    draw = random.Random(0)
    data = comparison(evidence(), evidence())
    base = data.results[0]
    names = [f"backbone.stage{n // 100}.block{n % 100}.conv{n}" for n in range(layers)]
    results = []
    for number in range(rows):
        name = "eager" if number == 0 else f"half:variant={number}"
        measured = attrs.evolve(
            base.measurement,
            blocks=tuple(_blocks(0.01 / (1 + 0.3 * number), draw)),
            preparations=tuple(Preparation(1.0, 0.1, 30, replica) for replica in range(3)),
        )
        seen = _large_evidence(names, *_PRECISIONS[number > 0], draw)
        results.append(
            attrs.evolve(
                base,
                backend=name,
                name=name.partition(":")[0],
                measurement=measured,
                evidence=seen,
            )
        )
    return attrs.evolve(data, results=tuple(results))


def _blocks(time_s: float, draw: random.Random) -> list[Block]:
    held = DeviceState(1.4e9, 700.0, 70.0, ("sw_power_cap",))
    calm = DeviceState(1.98e9, 300.0, 50.0)
    return [
        Block(
            round_,
            replica,
            replica,
            tuple(round(time_s * draw.uniform(0.98, 1.02), 8) for _ in range(10)),
            state=held if draw.random() < 0.05 else calm,
        )
        for round_ in range(40)
        for replica in range(3)
    ]


def _large_evidence(names: list[str], dtype: str, kernel: str, draw: random.Random) -> Evidence:
    moves = (Kernel(LAYOUT, 1.0, 3e-7), Kernel(CAST, 1.0, 2e-7))
    return evidence(
        *(conv(1e-6 * draw.uniform(1, 20), dtype, kernel, layer=n, extra=moves) for n in names),
        layers=tuple(layer(name, dtype=dtype) for name in names),
        errors=tuple(LayerError(n, draw.uniform(1e-5, 1e-3), 3.2, 0, 3.3) for n in names),
        outputs=(Tensor((32, 1000), dtype),),
    )


_VOID = {"meta", "link", "br", "input", "img", "wbr"}


class Page(html.parser.HTMLParser):
    """Elements in order, and whether they are nested as they should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.parents: list[tuple[str, ...]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"{tag} is never closed" for tag in self._open]

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        if len(set(names)) < len(names):
            self.faults.append(f"{tag} has an attribute twice")
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        self.parents.append(tuple(self._open))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> where {self._open[-1:]} is open")
        else:
            self._open.pop()

    def handle_data(self, data):
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of all elements of a tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """The visible text and the titles."""
        shown = {t: v for t, v in self.texts.items() if t not in ("script", "style")}
        return " ".join(piece for pieces in shown.values() for piece in pieces)

    @property
    def data(self) -> ComparisonData:
        """The data embedded as JSON."""
        document = self.texts["script"][0]
        return json_format.from_json(json.dumps(json.loads(document)))


def page(data: ComparisonData, **more) -> Page:
    """The parsed report."""
    return Page(to_html(data, **more))
