"""The pytest plugin: the fixture `precision_benchmark`, baselines, result files, and a summary.

pytest loads it through its entry point in every environment in which it is installed. Therefore
nothing of the library is imported before a test measures something, torch above all.
`-p no:precisionbench` disables it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from precisionbench.backends import Backend
    from precisionbench.comparison import Comparison

_MARK = "precision_device"


class Settings(NamedTuple):
    """The values of our command-line options.

    Attributes:
        output: folder of the result files, one for each comparison; None writes none.
        baselines: folder of the baselines; None compares with none.
        save: whether missing baselines are saved.
        overwrite: whether result files and, with `save`, baselines may be replaced.
        written: result files of this run, which a test that is run again may replace.
    """

    output: Path | None
    baselines: Path | None
    save: bool
    overwrite: bool
    written: set[Path]


class Measured(NamedTuple):
    """The comparisons of a test, and the results of comparing them with baselines."""

    comparisons: list[Comparison]
    sentences: list[str]


_SETTINGS = pytest.StashKey[Settings]()
_MEASURED = pytest.StashKey[Measured]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options."""
    group = parser.getgroup("precisionbench", "speed under several precisions")
    group.addoption(
        "--precisionbench-output",
        metavar="DIR",
        help="Save each comparison as a JSON file here.",
    )
    group.addoption(
        "--precisionbench-baselines",
        metavar="DIR",
        help="Fail a test whose rows became slower than in the results saved here.",
    )
    group.addoption(
        "--precisionbench-save",
        action="store_true",
        help="Save missing baselines, from tests that pass.",
    )
    group.addoption(
        "--precisionbench-overwrite",
        action="store_true",
        help="Let --precisionbench-output and --precisionbench-save replace existing files.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read our options and register the mark."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(device): measure on this device; skip the test if there is none",
    )
    option = config.getoption
    output, baselines, save, overwrite = (
        option(f"--precisionbench-{name}") for name in ("output", "baselines", "save", "overwrite")
    )
    if save and not baselines:
        raise pytest.UsageError("--precisionbench-save needs --precisionbench-baselines DIR")
    if overwrite and not (save or output):
        raise pytest.UsageError(
            "--precisionbench-overwrite needs --precisionbench-save or --precisionbench-output DIR"
        )
    config.stash[_SETTINGS] = Settings(
        _folder(config, output), _folder(config, baselines), save, overwrite, set()
    )
    config.pluginmanager.register(_Summary(), "precisionbench-summary")


def _folder(config: pytest.Config, name: str | None) -> Path | None:
    return None if name is None else Path(config.invocation_params.dir, name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose mark names a device that this machine does not have."""
    device = _marked_device(item)
    if device is not None:
        _skip_without(device)


def _marked_device(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker(_MARK)
    if mark is None:
        return None
    if len(mark.args) != 1 or mark.kwargs:
        raise pytest.UsageError(f'{item.nodeid}: write @pytest.mark.{_MARK}("cuda")')
    return str(mark.args[0])


def _skip_without(device: Any) -> None:
    """Skip if torch knows this kind of device and there is none; other names are errors."""
    import torch

    from precisionbench.errors import WorkloadError
    from precisionbench.model.workload import usable_device

    try:
        usable_device(device)
    except WorkloadError as exc:
        with contextlib.suppress(RuntimeError, TypeError):
            torch.device(device)
            pytest.skip(exc.reason)
        raise


class PrecisionBenchmark:
    """The value of the fixture `precision_benchmark`: `compare` for tests.

    Args:
        item: the test.
        lock: held during a measurement.
    """

    def __init__(self, item: pytest.Item, lock: AbstractContextManager[object]) -> None:
        self._item = item
        self._lock = lock
        self._settings = item.config.stash[_SETTINGS]
        self._measured = item.stash[_MEASURED] = Measured([], [])

    def __call__(
        self,
        model: Any,
        inputs: Any = None,
        *,
        backends: Sequence[str | Backend] | None = None,
        device: Any = None,
        **options: Any,
    ) -> Comparison:
        """Measure one model under several precision backends.

        Args:
            model: as for `compare`.
            inputs: as for `compare`: a tensor, a tuple, a mapping, or a function.
            backends: specs or `Backend` objects; None is `default_backends` of the device.
            device: as for `compare`; None takes the device of the mark `precision_device`. If
                there is no such device, the test is skipped.
            options: further arguments of `compare`, such as `budget_s`.

        Returns:
            The comparison. It is shown at the end of the run and, depending on the options of
            pytest, saved to a file, and compared with a baseline after the test has passed.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            OutputError: the result or the baseline cannot be written; nothing was measured.
            PrecisionBenchError: as `compare`.
        """
        from precisionbench.measure.compare import compare

        device = _marked_device(self._item) if device is None else device
        if device is not None:
            _skip_without(device)
        file = self._output_file()
        options.setdefault("on_progress", None)  # pytest has its own display
        with self._lock:
            found = compare(model, inputs, backends=backends, device=device, **options)
        if any(row.measurement.ended_by == "interrupted" for row in found):
            raise KeyboardInterrupt  # Ctrl-C is meant to end the whole test run
        self._measured.comparisons.append(found)
        if file is not None:
            found.save(file, overwrite=self._may_replace(file))
            self._settings.written.add(file)
        return found

    def _output_file(self) -> Path | None:
        """The file of the next comparison; it and the baseline can be written, as checked here."""
        from precisionbench._internal import files
        from precisionbench.testing import baselines

        settings = self._settings
        name = baselines.file_name(self._item.nodeid, len(self._measured.comparisons) + 1)
        if settings.baselines is not None:
            baseline = settings.baselines / name
            if baselines.is_to_be_saved(baseline, save=settings.save, overwrite=settings.overwrite):
                place = files.existing_folder(
                    settings.baselines
                )  # a test that fails leaves no folder
                files.check_writable(place / name, settings.overwrite)
        if settings.output is None:
            return None
        file = files.make_folder(settings.output) / name
        files.check_writable(file, self._may_replace(file))
        return file

    def _may_replace(self, file: Path) -> bool:
        return self._settings.overwrite or file in self._settings.written


@pytest.fixture
def precision_benchmark(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PrecisionBenchmark:
    """Measure a model under several precision backends: `precision_benchmark(model, inputs)`."""
    return PrecisionBenchmark(request.node, _lock(tmp_path_factory))


def _lock(tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[object]:
    """Lets one worker of pytest-xdist measure at a time; without xdist there is no lock."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return contextlib.nullcontext()
    from filelock import FileLock

    # the common folder of all workers of a run
    return FileLock(tmp_path_factory.getbasetemp().parent / "precisionbench.lock")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Compare the measurements of a test with its baselines after it has passed."""
    result = yield
    settings, measured = item.config.stash[_SETTINGS], item.stash.get(_MEASURED, None)
    if settings.baselines is not None and measured is not None:
        _check_baselines(item.nodeid, settings.baselines, settings, measured)
    return result


def _check_baselines(test: str, folder: Path, settings: Settings, measured: Measured) -> None:
    from precisionbench import safe_text
    from precisionbench.errors import PrecisionBenchError
    from precisionbench.testing import baselines

    save, overwrite = settings.save, settings.overwrite
    for number, comparison in enumerate(measured.comparisons, 1):
        file = folder / baselines.file_name(test, number)
        try:
            result = baselines.check_baseline(comparison, file, save=save, overwrite=overwrite)
        except (AssertionError, PrecisionBenchError) as exc:
            # the test's code did not fail, so no traceback is shown
            raise pytest.fail.Exception(str(exc), pytrace=False) from None
        measured.sentences.append(safe_text.line(result))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the measurements to the report, which pytest-xdist sends to its controller."""
    report = yield
    measured = item.stash.get(_MEASURED, None)
    if call.when == "call" and measured is not None:
        report.__dict__["precisionbench"] = [*map(str, measured.comparisons), *measured.sentences]
    return report


class _Summary:
    """Collects reports, and shows their tables at the end of the run."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect the texts of a test."""
        if texts := getattr(report, "precisionbench", None):
            self._texts[report.nodeid] = texts

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the texts of all tests."""
        if not self._texts:
            return
        terminalreporter.section("precisionbench")
        for test, texts in self._texts.items():
            terminalreporter.write_line(test, bold=True)
            for text in texts:
                terminalreporter.write_line(f"\n{text}")
            terminalreporter.write_line("")
