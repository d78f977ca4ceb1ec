"""Line numbers of tables and fields in TOML text, for error messages; tomllib reports none."""

from __future__ import annotations

import re

# The line of a table that was not found, and of the file itself.
NOT_FOUND, WHOLE_FILE = -1, 0
_HEADER = re.compile(r"\s*(\[.*\])\s*(#.*)?$")


class TomlLines:
    """Finds headers and fields in TOML text by their usual spelling.

    Args:
        text: the TOML text.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        matches = ((i, _HEADER.match(line)) for i, line in enumerate(self._lines, 1))
        self._headers = [(match[1], i) for i, match in matches if match]
        # of two equal ones the first
        self._tables = {line.replace('"', ""): i for line, i in reversed(self._headers)}

    def of_table(self, name: str) -> int:
        """The line of a table's header, from 1; `NOT_FOUND` where there is none.

        Args:
            name: name of the table, such as `source.mlperf`.
        """
        return self._tables.get(f"[{name}]".replace('"', ""), NOT_FOUND)

    def of_array(self, name: str, count: int) -> list[int]:
        """The lines of the headers of an array of tables.

        Args:
            name: name of the array, such as `record`.
            count: number of its tables.

        Returns:
            A line for each table; `NOT_FOUND` for all where the array is spelled differently.
        """
        header = re.compile(rf"\[\[\s*{re.escape(name)}\s*\]\]")
        lines = [i for line, i in self._headers if header.fullmatch(line)]
        return lines if len(lines) == count else [NOT_FOUND] * count

    def of_field(self, table: int, field: str) -> int:
        """The line of a field of a table; the table's own line where it is not found.

        Args:
            table: line of the table's header.
            field: name of the field.
        """
        if table == NOT_FOUND:
            return table
        name = rf'"?{re.escape(field)}"?'
        written = re.compile(rf"\s*({name}\s*[=.]|\[+\s*{name}\s*[\].])")
        for i, line in enumerate(self._lines[table:], table + 1):
            if written.match(line):
                return i
            if _HEADER.match(line) and table != WHOLE_FILE:
                break
        return table
