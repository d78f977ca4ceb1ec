"""What the results of `tune` depend on: where that changes, the journal's entries do not count."""

from __future__ import annotations

from typing import Any

import attrs

from precisionbench._version import __version__
from precisionbench.measure.rows import plan
from precisionbench.model import fingerprint
from precisionbench.model.workload import Workload
from precisionbench.results import json_format
from precisionbench.results.environment import Environment
from precisionbench.results.tuning import Target
from precisionbench.workflows.tuning.accuracy import Judge
from precisionbench.workflows.tuning.journal import key_of
from precisionbench.workflows.tuning.target import as_key


@attrs.frozen
class Keys:
    """Keys of what was tried: texts that change where the result could.

    Attributes:
        base: what everything depends on, as JSON values.
        packages: versions of all packages, by name.
    """

    base: dict[str, Any]
    packages: dict[str, str]

    @classmethod
    def of(
        cls,
        target: Target,
        where: Environment,
        judge: Judge,
        workload: Workload,
        reference: str,
        unread: str = "",
    ) -> Keys:
        """The keys of a search.

        Args:
            target: the machine and the model.
            where: the environment, with the versions of all packages that may be used.
            judge: what the accuracy is measured on.
            workload: the model and inputs.
            reference: spec of the row that speed-ups are over.
            unread: as `fingerprint.unread` gives it for the model.
        """
        # The data say how many batches there are; where time ends their reading that number varies.
        bound = attrs.evolve(judge.bound, batches=0)
        base = {
            **as_key(target),
            "versions": [__version__, where.python, where.torch, where.cuda, where.cudnn],
            "cores": [where.cpu_cores, where.threads],
            "power": where.power_mode,
            "bound": json_format.unstructured(bound),
            "inputs": fingerprint.batch((workload.inputs.args, workload.inputs.kwargs)),
            "batch_size": workload.info.batch_size,
            "unread": unread,
            "data": judge.key,
            "reference": reference,
            "calibration": "data" if judge.bound.is_metric else "inputs",
        }
        return cls(base, dict(where.packages))

    def of_spec(self, spec: str) -> str:
        """The key of a configuration: also of the versions of packages that it uses.

        Args:
            spec: its canonical spec.
        """
        rows, _ = plan([spec], spec)
        claims = rows[0].claims
        names = claims.packages if claims else ()
        return key_of(self.base, spec, {name: self.packages.get(name) for name in names})
