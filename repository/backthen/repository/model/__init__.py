"""The data model: entries, pages, records. Pure: no I/O, no keys, no clock."""
