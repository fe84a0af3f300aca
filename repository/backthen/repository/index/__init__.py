"""Where each blob is: index objects of the repository, merged into a local, shared, disposable table.

The only importer of `lmdb`.
"""

from backthen.repository.index.links import LinkTable
from backthen.repository.index.objects import check_indexed_pack, decode_index, encode_index
from backthen.repository.index.pack_records import PackRecord
from backthen.repository.index.table import LocalIndex, Location
from backthen.repository.index.temporary import TemporaryTable

__all__ = [
    "LinkTable",
    "LocalIndex",
    "Location",
    "PackRecord",
    "TemporaryTable",
    "check_indexed_pack",
    "decode_index",
    "encode_index",
]
