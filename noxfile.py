"""What contributors and CI run. `nox` runs the checks; `nox --list` shows all there is.

All sessions but `minimums` share the environment that nox itself runs in, because torch alone takes
5 GB:

    python3 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[dev]' && .venv/bin/nox

What stands after `--` goes to pytest: `nox -s tests -- tests/test_cli.py`.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

MIN_BRANCHES = 0.9
DIST = Path("dist")
# Of the extra `dev`, what the tests can do without.
NOT_FOR_TESTS = ("precisionbench", "nox", "mypy", "ruff")
# More processes than cores gain nothing: they would disturb each other's measurements.
# A file stays in one process: its tests share comparisons, and a page's blocks their names.
# Files begin in the order in which they are collected, the longest ones first (tests/conftest.py).
IN_TWO_PROCESSES = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
_installed: list[Path] = []  # the wheel, once it is
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["checks", "tests", "coverage"]


def _python(session: nox.Session, *args: str) -> None:
    session.run(sys.executable, "-m", *args, external=True)


@nox.session
def checks(session: nox.Session) -> None:
    """Run lint, types and docs side by side: each of them uses one core only."""
    with ThreadPoolExecutor() as pool:
        for started in [pool.submit(check, session) for check in (lint, types, docs)]:
            started.result()


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style (ruff) and that imports run downwards only (import-linter)."""
    _python(session, "ruff", "check", ".")
    _python(session, "ruff", "format", "--check", ".")
    session.run(str(Path(sys.executable).with_name("lint-imports")), external=True)


@nox.session(default=False)
def types(session: nox.Session) -> None:
    """Check types with mypy --strict."""
    _python(session, "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that this machine can, except slow ones, on the wheel, with coverage."""
    _python(session, "coverage", "erase")
    _install_wheel(session)
    # coverage is started before pytest loads plugins, of which our own is one
    chosen = session.posargs or ("-m", "not slow")
    _python(session, "coverage", "run", "-m", "pytest", *IN_TWO_PROCESSES, *chosen)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the tests that measure for real or run programs, for seconds each: before a merge."""
    _install_wheel(session)
    _python(session, "pytest", *IN_TWO_PROCESSES, "-m", "slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Print the coverage of `tests`; it fails below 90 % of the branches."""
    _python(session, "coverage", "combine", "--quiet")
    _python(session, "coverage", "report", *(["--fail-under=0"] if session.posargs else []))
    if not session.posargs:
        _check_branches(session)


def _wheel(session: nox.Session) -> Path:
    """Build what would be published, and say where the wheel is."""
    _python(session, "hatchling", "build", "--clean", "-d", str(DIST))
    return max(DIST.glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime).resolve()


def _install_wheel(session: nox.Session) -> None:
    """Install what would be published, once for all sessions of this run."""
    if _installed:
        return
    options = ("--quiet", "--no-deps", "--force-reinstall")
    wheel = _wheel(session)
    _python(session, "pip", "install", *options, str(wheel))
    _installed.append(wheel)


def _check_branches(session: nox.Session) -> None:
    """Coverage's own limit mixes lines and branches; ours is of the branches alone."""
    report = Path(session.create_tmp()) / "coverage.json"
    _python(session, "coverage", "json", "--quiet", "-o", str(report))
    totals = json.loads(report.read_text())["totals"]
    covered = totals["covered_branches"] / totals["num_branches"]
    session.log(f"{covered:.1%} of {totals['num_branches']} branches are covered")
    if covered < MIN_BRANCHES:
        session.error(f"fewer than {MIN_BRANCHES:.0%} of the branches are covered")


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the site into build/docs; a warning or a dead link is an error. It needs no network."""
    _python(session, "sphinx", "-W", "--keep-going", "-E", "-q", "docs", "build/docs")


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """Run every example at its smallest size, against the wheel."""
    _install_wheel(session)
    files = ("tests/test_examples.py", "tests/test_pytest_plugin.py")
    _python(session, "pytest", "-k", "example", *files, *session.posargs)


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Run what needs a GPU: the suites marked gpu, apex and tensorrt."""
    _python(session, "pytest", "-m", "gpu or apex or tensorrt", "tests", *session.posargs)


@nox.session(default=False)
def engines(session: nox.Session) -> None:
    """Run what needs an engine on a CPU: the suites marked onnxruntime, openvino and torchao."""
    _python(
        session, "pytest", "-m", "onnxruntime or openvino or torchao", "tests", *session.posargs
    )


@nox.session(name="tensorrt-rtx", default=False)
def tensorrt_rtx(session: nox.Session) -> None:
    """Build engines by the real builder of TensorRT for RTX, which needs no GPU (2 GB of disk)."""
    folder = Path(session.create_tmp()) / "tensorrt-rtx"
    # Without their dependencies: they ask for another torch build and an older tensorrt_rtx.
    wanted = ("--quiet", "--no-deps", "--upgrade", "--target", str(folder))
    _python(session, "pip", "install", *wanted, "-r", "tests/tensorrt-rtx.txt")
    session.env["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    _python(session, "pytest", "-m", "tensorrt_rtx", "tests", *session.posargs)


@nox.session(default=False, venv_backend="venv", python="3.10")
def minimums(session: nox.Session) -> None:
    """Run the tests on the lowest Python and versions that pyproject.toml allows (6 GB of disk)."""
    wheel = _wheel(session)
    session.install("uv")  # pip knows highest versions only
    into = ("uv", "pip", "install", "--python", session.virtualenv.location)
    extras = [f"--extra={name}" for name in ("torchvision", "pandas", "plot", "study")]
    lowest = ("--resolution", "lowest-direct", "-r", "pyproject.toml", *extras)
    session.run(*into, *lowest)
    session.run(*into, "--no-deps", str(wheel))
    wanted = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]["dev"]
    session.run(*into, *(tool for tool in wanted if not tool.startswith(NOT_FOR_TESTS)))
    session.run("uv", "pip", "list", "--python", session.virtualenv.location)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution into dist/, as they would be published."""
    session.log(f"built {_wheel(session)}")
