"""Where objects are kept: the contract, the names, and the backends. Knows nothing of what is inside an object."""

from backthen.repository.storage.access import StorageAccess
from backthen.repository.storage.backends.local import LocalStorage
from backthen.repository.storage.contract import Storage, StoredObject
from backthen.repository.storage.location import open_storage
from backthen.repository.storage.locked_files import new_locked_file, remove_abandoned
from backthen.repository.storage.names import (
    CONFIG_NAME,
    FOLDERS,
    check_folder,
    check_object_name,
    index_name,
    is_object_name,
    key_name,
    log_name,
    mark_name,
    pack_name,
    parse_index_name,
    parse_key_name,
    parse_log_name,
    parse_mark_name,
    parse_pack_name,
    parse_root_name,
    root_name,
)
from backthen.repository.storage.object_cache import CACHE_BYTES_MAX, ObjectCache, cached_bytes, clear_cached
from backthen.repository.storage.pacing import Pace
from backthen.repository.storage.side_by_side import at_once, side_by_side
from backthen.repository.storage.wrappers.ahead import ListedAhead
from backthen.repository.storage.wrappers.cached import CachedStorage
from backthen.repository.storage.wrappers.observed import ObservedStorage, StorageState
from backthen.repository.storage.wrappers.retrying import RetryingStorage

__all__ = [
    "CACHE_BYTES_MAX",
    "CONFIG_NAME",
    "FOLDERS",
    "CachedStorage",
    "ListedAhead",
    "LocalStorage",
    "ObjectCache",
    "ObservedStorage",
    "Pace",
    "RetryingStorage",
    "Storage",
    "StorageAccess",
    "StorageState",
    "StoredObject",
    "at_once",
    "cached_bytes",
    "check_folder",
    "check_object_name",
    "clear_cached",
    "index_name",
    "is_object_name",
    "key_name",
    "log_name",
    "mark_name",
    "new_locked_file",
    "open_storage",
    "pack_name",
    "parse_index_name",
    "parse_key_name",
    "parse_log_name",
    "parse_mark_name",
    "parse_pack_name",
    "parse_root_name",
    "remove_abandoned",
    "root_name",
    "side_by_side",
]
