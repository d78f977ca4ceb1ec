"""How results are shown at a prompt and in notebooks, and their tables as pandas data frames."""

from precisionbench.display.frames import dataframe
from precisionbench.display.records import Records, TableResult
from precisionbench.display.shown import Result, Shown

__all__ = ["Records", "Result", "Shown", "TableResult", "dataframe"]
