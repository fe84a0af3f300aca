"""Which handle an SFTP server will give, held against a server that works as OpenSSH's does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backthen.repository.storage.backends.sftp.handles import Handles, Request


class Server:
    """Numbers what is open as OpenSSH does, and answers when it is told to."""

    def __init__(self) -> None:
        self.handles = Handles()
        self.open: list[bytes] = []
        self._free: list[int] = []
        self._given = 0
        self._unanswered: list[tuple[Request, bytes | None]] = []

    def ask_to_open(self, *, fails: bool = False) -> bytes | None:
        request = self.handles.opening()
        if fails:
            self._unanswered.append((request, None))
            return None
        if not self._free:
            self._free.append(self._given)
            self._given += 1
        handle = self._free.pop().to_bytes(4)
        self.open.append(handle)
        self._unanswered.append((request, handle))
        return handle

    def ask_to_close(self, handle: bytes) -> None:
        self.open.remove(handle)
        self._free.append(int.from_bytes(handle))
        self._unanswered.append((self.handles.closing(handle), handle))

    def answer(self, *, backwards: bool = False) -> None:
        """All that was asked; seen out of order, where they are told to."""
        answers, self._unanswered = self._unanswered, []
        for request, handle in reversed(answers) if backwards else answers:
            self.handles.answered(request, handle)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_what_openssh_gives_is_foretold(steps: list[int]) -> None:
    server = Server()
    has_failed = False
    for step in steps:
        if step < 2:
            foretold = server.handles.foretell()
            assert has_failed or foretold == server.ask_to_open()
            assert not has_failed or foretold is not None
        elif step == 2 and server.open:
            server.ask_to_close(server.open[len(server.open) // 2])
        elif step == 3:
            server.ask_to_open(fails=True)
            has_failed = True
        elif step > 3:
            server.answer(backwards=step == 5)
            has_failed = False


def test_a_handle_of_another_kind_ends_it() -> None:
    handles = Handles()
    handles.answered(handles.opening(), b"a handle")
    assert handles.foretell() is None


def test_another_order_ends_it() -> None:
    handles = Handles()
    first = bytes(4)
    handles.answered(handles.opening(), first)
    handles.answered(handles.closing(first), first)
    assert handles.foretell() == first
    handles.answered(handles.opening(), b"\0\0\0\1")
    assert handles.foretell() is None


def test_what_is_not_closed_for_sure_ends_it() -> None:
    handles = Handles()
    handles.answered(handles.opening(), bytes(4))
    handles.answered(handles.closing(bytes(4)), None)
    assert handles.foretell() is None
