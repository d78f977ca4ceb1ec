"""The command `precisionbench`, which is also `python -m precisionbench`."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line; Ctrl-C while it is imported is a sentence, too."""
    try:
        from precisionbench.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted: nothing is kept\n")
        sys.exit(130)
    main(prog_name="precisionbench")


if __name__ == "__main__":
    run()
