"""Objects in a folder of an SSH server, by SFTP version 3 with the extensions of OpenSSH."""

from backthen.repository.storage.backends.sftp.address import parse_address
from backthen.repository.storage.backends.sftp.storage import SftpStorage

__all__ = ["SftpStorage", "parse_address"]
