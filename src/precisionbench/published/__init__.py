"""Numbers that others published, each with its conditions and source.

::

    import precisionbench as pb

    for record in pb.published.find(device="agx xavier", model="resnet50"):
        print(record.id, record.value_per_accelerator, record.unit)

None of them was measured here; `status` and `confidence` rate how reliable each is.
"""

from precisionbench.published.imports.store import Import, ImportResult
from precisionbench.published.reader import read
from precisionbench.published.record import Record
from precisionbench.published.search import (
    everything,
    find,
    get,
    import_file,
    imports,
    remove_import,
)

__all__ = [
    "Import",
    "ImportResult",
    "Record",
    "everything",
    "find",
    "get",
    "import_file",
    "imports",
    "read",
    "remove_import",
]
