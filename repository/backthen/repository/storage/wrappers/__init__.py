"""What stands before a backend, each a `Storage` over another one that passes the same suite."""
