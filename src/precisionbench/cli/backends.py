"""`precisionbench backends`."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def backends(as_json: bool) -> None:
    """List installed backends, their options, and what is missing.

    \b
    Example:
      precisionbench backends
    """
    import attrs

    from precisionbench.backends.discovery import list_backends

    found = list_backends()
    if as_json:
        click.echo(json.dumps([attrs.asdict(info) for info in found], indent=1))
        return
    for info in found:
        state = "ready" if info.available else f"not here: needs {info.requirement}; {info.remedy}"
        click.echo(f"{click.style(info.name, bold=True)}  {info.summary}")
        click.echo(f"  {state}")
        for option, allowed in info.options.items():
            click.echo(f"    {option}={allowed.replace(' or ', '|').replace(chr(39), '')}")
