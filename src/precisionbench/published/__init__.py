"""Numbers that others published, each with its conditions and source.

::

    import precisionbench as pb

    for record in pb.published.find(device="agx xavier", model="resnet50"):
        print(record.id, record.value_per_accelerator, record.unit)

None of them was measured here; `status` and `confidence` rate how reliable each is.
"""

from precisionbench.published.reader import read
from precisionbench.published.record import Record
from precisionbench.published.search import everything, find, get

__all__ = ["Record", "everything", "find", "get", "read"]
