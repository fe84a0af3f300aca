"""Blobs put and got by id, with de-duplication: above packs and index, below snapshots."""

from backthen.repository.objects.indexing import remove_from_index
from backthen.repository.objects.orphans import index_orphans, load_pack_directory
from backthen.repository.objects.reader import BlobReader
from backthen.repository.objects.refresh import refresh_index
from backthen.repository.objects.source import BlobSource, CacheUse, NotInMemory
from backthen.repository.objects.spool import remove_abandoned_packs
from backthen.repository.objects.writer import BlobWriter

__all__ = [
    "BlobReader",
    "BlobSource",
    "BlobWriter",
    "CacheUse",
    "NotInMemory",
    "index_orphans",
    "load_pack_directory",
    "refresh_index",
    "remove_abandoned_packs",
    "remove_from_index",
]
