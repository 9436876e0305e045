"""Windows: searching only what has a value between two bounds.

`index` is the door, `values` the ordered attribute, `run` one sorted run of vectors with its tree of graphs, `part` a
graph of that tree, `ways` the ways to answer a window, `margins` what these need to keep recall, `batch` the queries of
one call, `files` what is written of all this.
"""

from nearly.indexes.window.index import Window

__all__ = ["Window"]
