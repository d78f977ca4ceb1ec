"""A script of the user's own, run as it is in a fresh process, and what it breaks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import attrs

from precisionbench.errors import SpecError, one_line
from precisionbench.results import json_format
from precisionbench.scriptcheck.child import OBSERVATIONS, TOLD
from precisionbench.scriptcheck.event_log import place_of
from precisionbench.scriptcheck.events import NOTHING, Ending, Observations
from precisionbench.scriptcheck.notes import notes
from precisionbench.scriptcheck.rule import RuleContext
from precisionbench.scriptcheck.rules import breaches
from precisionbench.scriptcheck.static_analysis import read
from precisionbench.scriptcheck.text import to_text
from precisionbench.scriptcheck.timed_regions import Region, by_place, regions
from precisionbench.scriptcheck.violations import CheckData, TimedModel

BOOT = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; sys.path.insert(0, sys.argv.pop(1)); "
    "from precisionbench.scriptcheck.child import main; main(sys.argv[1:])"
)
_OWN_END_LIMIT_S = 2.0  # for an interrupted script to end by itself
_WRITE_LIMIT_S = 20.0  # for the child to write down what it has seen, once told to end
_STDERR = 2


@attrs.frozen
class Check(CheckData):
    """Which validity gates a script breaks; printed, it is a text."""

    def __str__(self) -> str:
        return to_text(self)


def check(
    script: str | os.PathLike[str], args: Sequence[str] = (), *, timeout_s: float | None = None
) -> Check:
    """Run a benchmark script as it is, and say which validity gates it breaks.

    It runs in a process of its own, from the working directory, with what it prints going to
    standard error. Ctrl-C ends it, and what was seen until then is told.

    Args:
        script: a Python file.
        args: what it finds in `sys.argv[1:]`.
        timeout_s: seconds after which it is ended; None lets it run.

    Returns:
        What it breaks, with figures, lines and remedies; printed, it is a text.

    Raises:
        SpecError: there is no such script, or it cannot be read.
    """
    if isinstance(args, str):
        raise SpecError(f"args is the text {args!r}", "give a list: args=['--batch', '8']")
    name = os.fspath(script)
    source = _source(name)
    seen = _observed(name, list(args), timeout_s)
    file = place_of((name, 0)).file
    text = read(source, file)
    scene = RuleContext(seen, regions(seen, text.conditions, file), text)
    return Check(
        script=name,
        breaches=breaches(scene),
        timed=tuple(_timed(scene, group) for group in by_place(scene.regions)),
        models=len(seen.models),
        ending=seen.ending,
        gpu=seen.gpu,
        torch=seen.torch,
        notes=notes(scene),
    )


def _source(name: str) -> str:
    try:
        with tokenize.open(name) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):  # Python will say so itself when it runs it
        return ""
    except (OSError, ValueError) as exc:
        raise SpecError(
            f"there is no script {name!r} to read ({one_line(exc)})", "give the path of a .py file"
        ) from exc


def _observed(script: str, args: list[str], timeout_s: float | None) -> Observations:
    """Run the script in a process of its own; gives what was seen of it."""
    root = str(Path(__file__).parent.parent.parent)
    with tempfile.TemporaryDirectory(prefix="precisionbench-") as folder, _pipe() as (told, tell):
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, root, folder, str(told), script, *args],
            stdout=_STDERR,
            pass_fds=(told,),
        )
        try:
            cut = _awaited(process, timeout_s, tell)
        finally:
            process.kill()
            process.wait()
        return _written(Path(folder) / OBSERVATIONS, cut or _death(process.returncode))


def _written(file: Path, otherwise: Ending) -> Observations:
    """What the child wrote down; its own ending counts, unless it was told to end."""
    if not file.exists():
        return attrs.evolve(NOTHING, ending=otherwise)
    document = json.loads(file.read_text(encoding="utf-8"))
    seen = json_format.structured(document, Observations)
    return attrs.evolve(seen, ending=otherwise) if seen.ending.kind == TOLD else seen


def _awaited(
    process: subprocess.Popen[bytes], timeout_s: float | None, tell: IO[bytes]
) -> Ending | None:
    """Wait for the end, or bring it about; gives why it was, None where it came by itself."""
    try:
        process.wait(timeout_s)
        return None
    except subprocess.TimeoutExpired:
        kind = "timeout"
    except KeyboardInterrupt:  # the terminal has interrupted the script, too
        kind = "interrupted"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_OWN_END_LIMIT_S)
    tell.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_WRITE_LIMIT_S)
    return Ending(kind)


def _death(code: int) -> Ending:
    """How it ended where it wrote nothing down."""
    if code >= 0:
        return Ending("killed", code)
    with contextlib.suppress(ValueError):
        return Ending("killed", 128 - code, signal.Signals(-code).name)
    return Ending("killed", 128 - code, f"signal {-code}")


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, IO[bytes]]]:
    """Two ends; whoever holds the first is told to end by closing the second."""
    told, tell = os.pipe()
    with os.fdopen(tell, "wb", buffering=0) as writer:
        try:
            yield told, writer
        finally:
            os.close(told)


def _timed(scene: RuleContext, group: list[Region]) -> TimedModel:
    """What was timed between two lines."""
    calls = [calls for region in group for calls in region.calls]
    models = list({c.model: scene.model(c) for c in calls}.values())
    device = [region.device_s for region in group if region.device_s is not None]
    return TimedModel(
        place=group[0].end,
        model=", ".join(dict.fromkeys(model.kind for model in models)),
        parameters=tuple(dict.fromkeys(dtype for model in models for dtype in model.parameters)),
        outputs=tuple(dict.fromkeys(dtype for call in calls for dtype in call.outputs)),
        timings=len(group),
        calls=sum(region.count for region in group),
        read_s=sum(region.read_s for region in group),
        device_s=sum(device) if len(device) == len(group) else None,
    )
