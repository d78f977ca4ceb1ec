"""The code blocks of README.md and docs/ are tests, and which worker processes count."""

from __future__ import annotations

import contextlib
import doctest
import functools
import gc
import io
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from sybil import Document, Example, Lexeme, Region, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from precisionbench.cli import main

if TYPE_CHECKING:
    from precisionbench.backends.discovery import BackendInfo

# Threads of one process would compete with the other processes that tests start. torch reads it
# when it is imported, which no plugin of pytest does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Commands that tests run save no comparison in the user's cache folder.
os.environ["PRECISIONBENCH_CACHE_DIR"] = ""
# Nor do they see numbers that the user imported.
os.environ["PRECISIONBENCH_DATA_DIR"] = ""


# What tests run in place of what a page shows: the sizes of small models, and smaller budgets.
IN_TESTS = re.compile(r"<!-- in tests: (.+) -->\s*$")
READS_A_RECORD = re.compile(r"\S*precisionbench (show|explain|study show) docs/records/\S+\n$")


class Recorded(PythonEvaluator):
    """Runs a block, and keeps what it printed for the block of text that follows.

    A comment above it, `<!-- in tests: shown -> run; shown -> run -->`, replaces parts of it.
    """

    def __call__(self, example: Example) -> None:
        """Run it, in the page's namespace."""
        example.parsed = in_tests(example)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            super().__call__(example)
        example.namespace["_printed"] = printed.getvalue()
        print(printed.getvalue())


def in_tests(example: Example) -> Lexeme:
    """The block as tests run it.

    Raises:
        ValueError: the block does not hold what the comment above it replaces.
    """
    source = str(example.parsed)
    if comment := IN_TESTS.search(example.document.text[: example.region.start]):
        for change in comment[1].split("; "):
            shown, _, run = change.partition(" -> ")
            if shown not in source:
                raise ValueError(f"the block below the comment does not hold {shown!r}")
            source = source.replace(shown, run)
    return Lexeme(source, example.parsed.offset, example.parsed.line_offset)


def is_what_was_printed(example: Example) -> str | None:
    """Hold a block that begins with ```text printed against what the block before it printed.

    Three dots stand for anything, as in doctest.
    """
    shown, printed = example.parsed, example.namespace.get("_printed", "")
    if doctest.OutputChecker().check_output(shown, printed, doctest.ELLIPSIS):
        return None
    return f"the page shows\n{shown}\nand this was printed\n{printed}"


def read_a_record(example: Example) -> None:
    """Run a command line that reads a record, and keep what it prints for the next block."""
    words = shlex.split(str(example.parsed))
    example.namespace["_printed"] = CliRunner().invoke(main, words[1:]).output


def commands_that_read_records(document: Document) -> Iterator[Region]:
    """Find the shell commands that tests run: they print records of docs/records, no more."""
    for region in CodeBlockParser("sh", read_a_record)(document):
        if READS_A_RECORD.match(str(region.parsed)):
            yield region


def pytest_collection_finish() -> None:
    """Collections of garbage, of which tests cause many, need not visit all that is imported."""
    gc.collect()
    gc.freeze()


pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", Recorded()),
        commands_that_read_records,
        CodeBlockParser("text printed", is_what_was_printed),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    fixtures=["coverage_of_workers", "small_matmuls", "listed_once"],
).pytest()


@pytest.fixture
def small_matmuls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page about the doctor measures a CPU in half precision, which takes it long."""
    if "doctor" in request.node.nodeid:
        monkeypatch.setattr("precisionbench.probes.machine.CPU_MATMUL_ROWS", 256)


@pytest.fixture(scope="session")
def list_once() -> Callable[[], tuple[BackendInfo, ...]]:
    """`list_backends`, which imports every engine in a worker: once for all tests of a process."""
    from precisionbench.measure import availability

    return functools.cache(availability.list_backends)


@pytest.fixture
def listed_once(
    monkeypatch: pytest.MonkeyPatch, list_once: Callable[[], tuple[BackendInfo, ...]]
) -> None:
    """Commands, searches and pages are given the same list of backends."""
    monkeypatch.setattr("precisionbench.measure.availability.list_backends", list_once)
    monkeypatch.setattr("precisionbench.list_backends", list_once)


@pytest.fixture(scope="session", autouse=True)
def coverage_of_workers() -> dict[str, str]:
    """The variable by which coverage counts other processes, too; no test but those below has it.

    Coverage makes importing torch twice as slow; a few tests show what other processes run. They
    are marked `workers_counted`, or their fixtures put this variable into the environment.
    """
    name = "COVERAGE_PROCESS_CONFIG"
    return {name: os.environ.pop(name)} if name in os.environ else {}


@pytest.fixture(autouse=True)
def workers_counted(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    coverage_of_workers: dict[str, str],
) -> None:
    """Let coverage count the worker processes of a test that is marked so."""
    if request.node.get_closest_marker("workers_counted"):
        for name, value in coverage_of_workers.items():
            monkeypatch.setenv(name, value)


# Coverage traces each call of a process, also of pytest, whose own work then takes three times as
# long; so it is switched on for fixtures and tests only.
TRACE = pytest.StashKey[Any]()


@contextlib.contextmanager
def tracing(trace: Any) -> Iterator[None]:
    """Count what runs meanwhile, or with None do not."""
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def trace_of(item: pytest.Item) -> Any:
    """What counts the lines of a test; None for one whose lines other tests count."""
    elsewhere = item.get_closest_marker("uncounted") or item.path.suffix == ".md"
    return None if elsewhere else item.config.stash[TRACE]


def pytest_configure(config: pytest.Config) -> None:
    """The process that hands tests to others runs none of our code."""
    if config.getoption("numprocesses", None):
        sys.settrace(None)
        threading.settrace(None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Switch coverage off around a test."""
    item.config.stash[TRACE] = sys.gettrace()
    with tracing(None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Fixtures that tests share are counted with whichever test comes first."""
    shared = fixturedef.scope != "function"
    with tracing(request.config.stash[TRACE] if shared else trace_of(request.node)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Count what a test runs."""
    with tracing(trace_of(pyfuncitem)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Count what fixtures do at their end; those that tests share end with the last of these."""
    with tracing(item.config.stash[TRACE]):
        return (yield)
