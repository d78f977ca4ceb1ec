"""The Python blocks of README.md and docs/ are tests, and which worker processes count."""

from __future__ import annotations

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/tutorials/*.md"],
    fixtures=["workers_uncounted"],
).pytest()


@pytest.fixture(autouse=True)
def workers_uncounted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coverage makes importing torch twice as slow; the tests of faults show what workers run."""
    if "test_faults" not in request.node.nodeid:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
