"""The requests that a worker process answers: each is declared once, and no other is answered."""

from __future__ import annotations

import contextlib
from typing import Any, get_type_hints

import attrs
import pytest

from precisionbench.errors import PrecisionBenchError
from precisionbench.measure.worker import protocol
from precisionbench.measure.worker.client import WorkerBackend
from precisionbench.measure.worker.protocol import REQUESTS, Opening, PreparedBackend
from precisionbench.measure.worker.server import Server
from precisionbench.measure.worker.session import Session

OPENING = Opening("host", 1e-9, 200e-6, 0.5, 3.0, 3, 0.01, {}, {}, ("sync_inside",))


@pytest.mark.parametrize("name", REQUESTS)
def test_each_request_has_a_method_that_returns_what_the_client_decodes(name):
    request = REQUESTS[name]
    owner = Session if request.answered_by_session else Server
    expected = type(None) if request.result is None else request.result
    assert get_type_hints(getattr(owner, name))["return"] == expected


@pytest.mark.parametrize("name", sorted(REQUESTS.keys() & vars(PreparedBackend)))
def test_the_client_and_the_session_have_the_signature_of_the_protocol(name):
    def hints(owner: type) -> dict[str, Any]:
        return get_type_hints(getattr(owner, name))

    assert hints(Session) == hints(PreparedBackend)
    assert getattr(WorkerBackend, name).__doc__ == getattr(PreparedBackend, name).__doc__


def test_a_request_that_is_not_declared_is_refused():
    server = Server(contextlib.ExitStack())
    for name in ("answer", "__init__", "stack", "no_such_request"):
        with pytest.raises(PrecisionBenchError, match=f"unknown worker request '{name}'"):
            server.answer(name, {})


class Worker:
    """A worker that answers `open` and `block`; it notes the arguments and time limits."""

    is_opening = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, float | None, dict[str, Any]]] = []

    def ask(self, request: str, limit_s: float | None = None, **arguments: Any) -> Any:
        self.asked.append((request, limit_s, arguments))
        return {"open": {**attrs.asdict(OPENING), "labels": ["sync_inside"]}, "block": [0.5]}[
            request
        ]


def test_arguments_and_results_travel_as_json_values():
    worker = Worker()
    prepared = WorkerBackend(worker)
    assert prepared.opening == OPENING
    assert prepared.block(3, calls_per_sample=4, settle_calls=2) == (0.5,)
    assert worker.asked[1][2] == {"samples": 3, "calls_per_sample": 4, "settle_calls": 2}


def test_time_limits_grow_with_the_calls_that_a_request_makes(monkeypatch):
    monkeypatch.setattr(protocol, "LIMITS", protocol.TimeLimits(block_s=1.0, call_factor=10.0))
    block = {"samples": 3, "calls_per_sample": 4, "settle_calls": 2}
    assert REQUESTS["block"].limit_s(0.5, block) == 1.0 + 10 * 14 * 0.5
    assert REQUESTS["check_steady"].limit_s(0.5) == 1.0 + 10 * 0.5
    assert REQUESTS["passes"].limit_s(0.5, {"call_s": 2.0, "capture": True}) == 1.0 + 10 * 200.0
    assert REQUESTS["open"].limit_s(0.5) == 3600.0
