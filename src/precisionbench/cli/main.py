"""The command line: a thin face over the library; each command is a module.

Results go to standard output, everything for people beside them to standard error. Heavy modules
are imported inside the commands, so that `--help` is quick.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from precisionbench._version import __version__
from precisionbench.cli.backends import backends
from precisionbench.cli.check import check
from precisionbench.cli.compare import compare
from precisionbench.cli.diff import diff
from precisionbench.cli.doctor import doctor
from precisionbench.cli.exits import (
    THRESHOLD_MISSED,
    BadUsage,
    Interrupted,
    NothingMeasured,
    exit_codes,
)
from precisionbench.cli.explain import explain
from precisionbench.cli.ladder import ladder
from precisionbench.cli.options import debug_option
from precisionbench.cli.output import print_chain, was_interrupted
from precisionbench.cli.published import published
from precisionbench.cli.show import show
from precisionbench.errors import (
    BackendUnavailableError,
    DeviceError,
    ExecutionError,
    MeasurementError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    one_line,
)

_NOTHING_MEASURED = (
    BackendUnavailableError,
    DeviceError,
    ExecutionError,
    MeasurementError,
    PreparationError,
    StateLeakError,
)


# What stands for our few signs on a terminal that cannot show them.
_PLAIN_SIGNS = str.maketrans(
    {"─": "-", "±": "+-", "µ": "u", "…": "...", "°": " deg ", "█": "#", "×": "x"}
)


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_PLAIN_SIGNS)
    return text.encode("ascii", "replace").decode(), error.end


def _write_plainly_where_needed() -> None:
    """Let no sign that the terminal's encoding lacks end the program."""
    codecs.register_error("precisionbench.plain", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="precisionbench.plain")


class _Group(click.Group):
    """Turns the library's errors into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        _write_plainly_where_needed()
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            if was_interrupted(ctx):
                ctx.exit(THRESHOLD_MISSED)
        except PrecisionBenchError as exc:
            print_chain(exc)
            failed = isinstance(exc, _NOTHING_MEASURED)
            raise (NothingMeasured if failed else BadUsage)(str(exc)) from exc
        except KeyboardInterrupt:
            raise Interrupted("nothing is kept") from None
        except BrokenPipeError:  # whoever reads us has seen enough; click ends quietly
            raise
        except OSError as exc:
            print_chain(exc)
            _abandon_stdout()
            raise BadUsage(f"the output could not be written ({one_line(exc)})") from exc
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as exc:  # a mistake of ours; a 1 would be taken for a missed threshold
            print_chain(exc)
            raise NothingMeasured(
                f"precisionbench itself failed ({one_line(exc)}); please report it with what "
                "--debug shows"
            ) from exc
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are needed, not by name."""
        return list(self.commands)


def _abandon_stdout() -> None:
    """Let Python not try again, and fail again, when it exits."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=exit_codes("a threshold was missed, or it was interrupted"),
)
@click.version_option(__version__)
def main() -> None:
    """Measure a PyTorch model under every precision backend, side by side.

    \b
    Example:
      precisionbench compare torchvision:resnet50 --backend half --backend autocast
    """


for _command in (compare, explain, ladder, show, diff, published, backends, doctor, check):
    _command.params.append(debug_option())
    main.add_command(_command)
main.params.append(debug_option())
