"""The kinds of storage there are. A backend does what the contract says and nothing else: it never tries again.

Backends know nothing of each other. What a foreign library raises becomes a `StorageError` here, which says whether the
same call may succeed later.
"""
