"""The last look at rows that were measured: what runs in a call, beside what float64 gives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from precisionbench.errors import PrecisionBenchError, WorkerError
from precisionbench.measure.worker.protocol import Seat
from precisionbench.results.evidence import Evidence

_NOBODY = "no row could compute the model in float64"


@attrs.define
class Truth:
    """What the model's layers give in float64, in a file that all seats can read.

    Attributes:
        folder: where the file is to be.
        path: the file; None where there is none.
        reason: why there is none.
    """

    folder: Path
    path: str | None = None
    reason: str = _NOBODY

    def ask(self, seats: Iterable[Seat]) -> None:
        """Let the first seat write it that can: one in whose process torch is not patched.

        Args:
            seats: of any rows, in the order in which to ask them.
        """
        path = str(self.folder / "truth.pt")
        for seat in seats:
            if self.path is not None:
                return
            try:
                seat.truth(path)
            except WorkerError as exc:  # the next would take as long, and end likewise
                self.reason = f"{_NOBODY}: {exc.reason}"
                return
            except PrecisionBenchError as exc:
                self.reason = f"{_NOBODY}: {exc.reason}"
            else:
                self.path = path

    def evidence(self, seat: Seat, call_s: float) -> Evidence:
        """What a seat's calls run, and how far its layers are from this.

        Args:
            seat: of a row.
            call_s: about how long a call takes.

        Raises:
            PrecisionBenchError: a call failed.
        """
        found = seat.evidence(call_s, self.path)
        if self.path is not None:
            return found
        return attrs.evolve(found, unknown={**found.unknown, "errors": self.reason})
