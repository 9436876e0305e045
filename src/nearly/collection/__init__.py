"""A durable collection: documents, metadata and vectors in one folder, changed and searched at the same time.

The folder::

    lock                    held (fcntl) by the one process that writes; says who that is
    catalogue.sqlite        the truth: which segments there are, which of their rows are dead, patches of metadata, and
                            the log of recent writes; every change of the collection is one of its transactions
    segments/00000012.rows.nearly      keys, columns of metadata, documents of a segment; safetensors, mapped
    segments/00000012.index0.nearly    vectors and index of its first field, as `nearly.load` reads it

Files of segments are written, synced and named before the transaction that names them, and never change. Writes go,
those that wait together (`grouping`), into the log and the tail in memory (`tail`); a full tail becomes a segment,
segments are merged (`maintenance`).
A snapshot (`state`) is immutable: segments, the rows alive in each as bits, patches, and how far into the tail it sees.
Readers take the snapshot that was published last; the writer makes the next one, commits, publishes it (`writing`).
A segment in which nothing can pass a filter, by what it knows of its columns, is skipped; segments may be laid out so
that searches skip much (`layout`, `partitioning`, `learning`, `space`, `balls`).
Opening reads the catalogue, maps files, and applies the log (`loading`, `records`): there is nothing to repair.

Rows lie in mapped arrays rather than Parquet: filters read columns where they lie, ten rows are read in a fraction of a
millisecond, and both are one copy of the data.
"""

from nearly.collection.checking import Stats, Verification
from nearly.collection.collection import Collection
from nearly.collection.found import Found, FoundInRange, Row, Rows
from nearly.collection.mending import mend
from nearly.collection.opening import open
from nearly.collection.partitioning import Partition
from nearly.collection.queries import Explanation
from nearly.collection.schema import Field

__all__ = [
    "Collection",
    "Explanation",
    "Field",
    "Found",
    "FoundInRange",
    "Partition",
    "Row",
    "Rows",
    "Stats",
    "Verification",
    "mend",
    "open",
]
