"""`precisionbench published`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from precisionbench.cli.completion import AnyFile
from precisionbench.cli.exit_codes import INTERNAL_ERROR, exit_codes_text
from precisionbench.cli.options import json_option, record_option
from precisionbench.cli.output import print_lines, print_text, write_json

if TYPE_CHECKING:
    from precisionbench.published import ImportResult, Record


class _Search(NamedTuple):
    """What is searched for."""

    device: str | None
    model: str | None
    precision: str | None
    file: str | None

    def found(self) -> tuple[Record, ...]:
        """The records that match."""
        from precisionbench.published import find

        return find(self.device, self.model, self.precision, file=self.file)


@click.command(
    short_help="List numbers that others published.",
    epilog=exit_codes_text(three=INTERNAL_ERROR),
)
@click.option("--device", metavar="NAME", help="Such as 'agx xavier', h200, a100.")
@click.option("--model", metavar="NAME", help="Such as resnet50, or 'ResNet-50 v1.5'.")
@click.option("--precision", metavar="NAME", help="Such as int8 or fp16.")
@record_option("--id", "Show one record in full, and compare it with the device's peaks.")
@click.option("--check", is_flag=True, help="List only doubtful and contradicted numbers, and why.")
@click.option("--file", type=AnyFile(), metavar="FILE", help="A TOML file with further records.")
@click.option(
    "--import",
    "import_",
    type=AnyFile(),
    metavar="FILE",
    help="Keep the numbers of MLPerf's summary_results.json, or of a table of timm, such as "
    "benchmark-infer-amp-nhwc-rtx4090.csv (--device and --precision, if its name states none).",
)
@click.option("--imports", is_flag=True, help="List what was imported, and where it is kept.")
@click.option("--remove", metavar="NAME", help="Remove an import; see --imports.")
@json_option("the records")
def published(
    device: str | None,
    model: str | None,
    precision: str | None,
    id: str | None,
    check: bool,
    file: str | None,
    import_: str | None,
    imports: bool,
    remove: str | None,
    as_json: bool,
) -> None:
    """List numbers that others published, with their conditions, without GPU and torch.

    None of them was measured here; the status of each says how well it is documented.

    \b
    Example:
      precisionbench published --device "agx xavier" --model resnet50
      precisionbench published --import summary_results.json
      precisionbench published --check
    """
    search = _Search(device, model, precision, file)
    if import_ or imports or remove:
        _check_alone(search, id, check, as_json, [bool(import_), imports, bool(remove)])
        _manage(search, import_, remove)
        return
    if id is not None and (device or model or precision or check):
        raise click.UsageError("--id names one record; omit the other options that select records")
    _show(search, id, check, as_json)


def _check_alone(
    search: _Search, id: str | None, check: bool, as_json: bool, actions: list[bool]
) -> None:
    """Refuse options that have no effect beside --import, --imports and --remove."""
    of_tables = bool(search.device or search.precision)
    others = id or check or as_json or search.file or search.model
    if sum(actions) > 1 or others or (of_tables and not actions[0]):
        raise click.UsageError(
            "--import, --imports and --remove show no records; give one of them only "
            "(--import also takes --device and --precision)"
        )


def _manage(search: _Search, import_: str | None, remove: str | None) -> None:
    """Import a file, remove an import, or list all."""
    from precisionbench.published import import_file, imports, remove_import

    if import_:
        done = import_file(import_, device=search.device, precision=search.precision)
        print_lines("\n".join(_result_lines(import_, done)))
    elif remove:
        remove_import(remove)
        print_lines(f"Removed {remove}.")
    else:
        from precisionbench.published.imports.store import folder

        lines = [
            f"{one.name}  {_numbers(len(one.records))}, {one.date}, from {one.file}"
            for one in imports()
        ]
        print_lines("\n".join([*lines, f"{_count(len(lines), 'import')} in {folder()}"]))


def _result_lines(file: str, result: ImportResult) -> list[str]:
    from precisionbench.published.imports.store import folder

    new = len(result.done.records) if result.done else 0
    lines = [f"Imported {_numbers(new)} from {file}."]
    if result.known:
        verb = "is" if result.known == 1 else "are"
        lines.append(f"Left out {_numbers(result.known)} that {verb} known already.")
    lines += [f"Left out {_count(n, 'row')}: {why}." for why, n in result.left_out.items()]
    if result.done:
        lines.append(f"Kept in {folder()}")
        lines.append(f"Remove them with: precisionbench published --remove {result.done.name}")
    return lines


def _numbers(count: int) -> str:
    return _count(count, "number")


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _show(search: _Search, id: str | None, check: bool, as_json: bool) -> None:
    """Print the records that were asked for."""
    from precisionbench.published import everything, get
    from precisionbench.published.search import what_exists
    from precisionbench.report import published as report

    found = (get(id, file=search.file),) if id else search.found()
    among = everything(search.file)
    if as_json:
        write_json(report.to_json(found, among))
    elif check:
        print_text(
            lambda width: report.checks_text(found, among, width),
            lambda console: report.show_checks(found, among, console),
        )
    elif id:
        print_text(
            lambda width: report.card_text(found[0], width, among),
            lambda console: report.show_card(found[0], console, among),
        )
    elif found:
        print_text(
            lambda width: report.to_text(found, width),
            lambda console: report.show(found, console),
        )
    else:
        print_lines(what_exists(*search))
