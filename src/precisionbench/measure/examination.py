"""The last look at rows that were measured: what runs in a call, beside what float64 gives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from precisionbench.errors import PrecisionBenchError, WorkerError
from precisionbench.measure.worker.protocol import PreparedBackend
from precisionbench.results.evidence import Evidence

_NOBODY = "no row could compute the model in float64"


@attrs.define
class Float64Reference:
    """What the model's layers give in float64, in a file that all replicas can read.

    Attributes:
        folder: where the file is to be.
        path: the file; None where there is none.
        reason: why there is none.
    """

    folder: Path
    path: str | None = None
    reason: str = _NOBODY

    def ask(self, replicas: Iterable[PreparedBackend]) -> None:
        """Let the first prepared write it that can: one in whose process torch is not patched.

        Args:
            replicas: of any rows, in the order in which to ask them.
        """
        path = str(self.folder / "truth.pt")
        for prepared in replicas:
            if self.path is not None:
                return
            try:
                prepared.truth(path)
            except WorkerError as exc:  # the next would take as long, and end likewise
                self.reason = f"{_NOBODY}: {exc.reason}"
                return
            except PrecisionBenchError as exc:
                self.reason = f"{_NOBODY}: {exc.reason}"
            else:
                self.path = path

    def evidence(self, prepared: PreparedBackend, call_s: float) -> Evidence:
        """What a prepared's calls run, and how far its layers are from this.

        Args:
            prepared: of a row.
            call_s: about how long a call takes.

        Raises:
            PrecisionBenchError: a call failed.
        """
        found = prepared.evidence(call_s, self.path)
        if self.path is not None:
            return found
        return attrs.evolve(found, unknown={**found.unknown, "errors": self.reason})
