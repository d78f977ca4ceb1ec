"""The command line; each command is a module.

Results are written to stdout, progress and errors to stderr. Heavy modules are
imported inside the commands, so that `--help` is fast.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from precisionbench._internal.termination import terminated_in_order
from precisionbench._version import __version__
from precisionbench.cli.backends import backends
from precisionbench.cli.check import check
from precisionbench.cli.compare import compare
from precisionbench.cli.diff import diff
from precisionbench.cli.examine import examine
from precisionbench.cli.exit_codes import (
    CLOSED_PIPE,
    INTERRUPTED,
    BadUsage,
    Interrupted,
    NothingMeasured,
    exit_codes_text,
)
from precisionbench.cli.explain import explain
from precisionbench.cli.ladder import ladder
from precisionbench.cli.options import debug_option
from precisionbench.cli.output import print_traceback, was_interrupted
from precisionbench.cli.published import published
from precisionbench.cli.show import show
from precisionbench.cli.study import study
from precisionbench.cli.tune import tune
from precisionbench.errors import (
    BackendUnavailableError,
    DeviceError,
    ExecutionError,
    MeasurementError,
    PrecisionBenchError,
    PreparationError,
    StateLeakError,
    kept_at,
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


# Other names of commands: functions of the library have them, too, or commands had them once.
_ALIASES = {"doctor": "examine", "diagnose": "explain", "against": "diff"}
_ALIAS_TEXT = ", ".join(f"{alias} for {name}" for alias, name in _ALIASES.items())

# Replacements of our few signs on a terminal that cannot show them.
_ASCII_SIGNS = str.maketrans(
    {"─": "-", "±": "+-", "µ": "u", "…": "...", "°": " deg ", "█": "#", "×": "x"}
)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end].translate(_ASCII_SIGNS)
    return text.encode("ascii", "replace").decode(), error.end


def _replace_unencodable_signs() -> None:
    """Write replacements of signs that the terminal's encoding lacks, instead of failing."""
    codecs.register_error("precisionbench.ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="precisionbench.ascii")


def _end_fork_server() -> None:
    from precisionbench.measure.worker.shared_server import SHARED_SERVER

    SHARED_SERVER.close()


class _Group(click.Group):
    """Prints the library's errors as one sentence and exits with their code."""

    def invoke(self, ctx: click.Context) -> Any:
        _replace_unencodable_signs()
        with terminated_in_order(_end_fork_server):
            return self._invoke(ctx)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """The context; `--help` and `--version` print here."""
        try:
            with _output_errors():
                return super().make_context(*args, **extra)
        except KeyboardInterrupt as exc:
            raise Interrupted(kept_at(exc)) from None

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            with _output_errors():
                result = super().invoke(ctx)
                if sys.stdout is not None:
                    sys.stdout.flush()
            if was_interrupted(ctx):
                ctx.exit(INTERRUPTED)
        except PrecisionBenchError as exc:
            print_traceback(exc)
            failed = isinstance(exc, _NOTHING_MEASURED)
            raise (NothingMeasured if failed else BadUsage)(str(exc)) from exc
        except KeyboardInterrupt as exc:
            raise Interrupted(kept_at(exc)) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as exc:  # a bug; exit code 1 would read as a missed threshold
            print_traceback(exc)
            raise NothingMeasured(
                f"precisionbench itself failed ({one_line(exc)}); please report it with what "
                "--debug shows"
            ) from exc
        return result

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, or of an alias."""
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which they are usually needed, not by name."""
        return list(self.commands)


@contextlib.contextmanager
def _output_errors() -> Iterator[None]:
    """Make one sentence of an error of stdout; end without one where its reader closed it."""
    try:
        yield
    except BrokenPipeError:
        _discard_stdout()
        raise click.exceptions.Exit(CLOSED_PIPE) from None
    except PrecisionBenchError:  # one of them is an OSError, too
        raise
    except OSError as exc:
        print_traceback(exc)
        _discard_stdout()
        raise BadUsage(
            f"the output could not be written ({one_line(exc)}); write it to a place with space"
        ) from exc


def _discard_stdout() -> None:
    """Keep Python from writing to the failed stream again, and failing again, at exit."""
    with contextlib.suppress(OSError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Aliases: {_ALIAS_TEXT}.\n\n"
    + exit_codes_text("a threshold was missed or a problem found"),
)
@click.version_option(__version__)
def main() -> None:
    """Measure a PyTorch model under every precision backend, side by side.

    \b
    Example:
      precisionbench compare torchvision:resnet50 --backend half --backend autocast
    """


for _command in (
    *(compare, explain, ladder, tune, show, diff, published, backends, examine, check),
):
    _command.params.append(debug_option())
    main.add_command(_command)
main.add_command(study)  # its commands have the option themselves
main.params.append(debug_option())
