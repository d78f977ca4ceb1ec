"""What contributors and CI run. `nox` runs the checks; `nox --list` shows all there is.

The sessions share the environment that nox itself runs in, because torch alone takes 5 GB:

    python3 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[dev]' && .venv/bin/nox
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nox

MIN_BRANCHES = 0.9
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "docs", "tests"]


def _python(session: nox.Session, *args: str) -> None:
    session.run(sys.executable, "-m", *args, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style (ruff) and that imports run downwards only (import-linter)."""
    _python(session, "ruff", "check", ".")
    _python(session, "ruff", "format", "--check", ".")
    session.run(str(Path(sys.executable).with_name("lint-imports")), external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy --strict."""
    _python(session, "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Install the built wheel and run all tests that this machine can, with branch coverage."""
    install = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    _python(session, *install, "--force-reinstall", ".")
    _python(session, "coverage", "erase")
    _python(session, "coverage", "run", "-m", "pytest", *session.posargs)
    _python(session, "coverage", "combine", "--quiet")
    _python(session, "coverage", "report")
    _check_branches(session)


def _check_branches(session: nox.Session) -> None:
    """Coverage's own limit mixes lines and branches; ours is of the branches alone."""
    report = Path(session.create_tmp()) / "coverage.json"
    _python(session, "coverage", "json", "--quiet", "-o", str(report))
    totals = json.loads(report.read_text())["totals"]
    covered = totals["covered_branches"] / totals["num_branches"]
    session.log(f"{covered:.1%} of {totals['num_branches']} branches are covered")
    if covered < MIN_BRANCHES:
        session.error(f"fewer than {MIN_BRANCHES:.0%} of the branches are covered")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into build/docs; a warning or a dead link is an error. It needs no network."""
    _python(session, "sphinx", "-W", "--keep-going", "-E", "-q", "docs", "build/docs")


@nox.session(default=False)
def gpu(session: nox.Session) -> None:
    """Run what needs a GPU: the suites marked gpu, apex and tensorrt."""
    _python(session, "pytest", "-m", "gpu or apex or tensorrt", "tests", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build the wheel into dist/."""
    _python(session, "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", "dist", ".")
