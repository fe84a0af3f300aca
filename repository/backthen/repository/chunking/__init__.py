"""Where large files are cut (FORMAT.md, section 7). The only importer of `pyfastcdc`."""

from backthen.repository.chunking.cutter import Cutter, check_fastcdc

__all__ = ["Cutter", "check_fastcdc"]
