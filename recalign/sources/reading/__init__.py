"""One reading layer for the files of all sources: records in batches, every record read or refused, none lost."""

from recalign.sources.reading.cells import Column, Kind, Read, typed
from recalign.sources.reading.elements import Aligned, Elements, Fields
from recalign.sources.reading.files import existing, existing_file, existing_folder
from recalign.sources.reading.records import Batch, Records
from recalign.sources.reading.tables import choose, glimpse, open_table, require

__all__ = [
    "Aligned",
    "Batch",
    "Column",
    "Elements",
    "Fields",
    "Kind",
    "Read",
    "Records",
    "choose",
    "existing",
    "existing_file",
    "existing_folder",
    "glimpse",
    "open_table",
    "require",
    "typed",
]
