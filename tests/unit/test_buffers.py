"""Memory that is used again: never while somebody still refers to it."""

from __future__ import annotations

import gc

from farshore_engine.blocks.buffers import Buffers, Parts


def test_parts_of_a_buffer_are_lent_until_nobody_refers_to_them() -> None:
    whole = memoryview(bytearray(4096 * 3))
    parts = Parts(whole, 4096, Buffers(4096, 0))
    held = [parts.take() for _ in range(3)]
    other = parts.take()
    other[:1] = b"o"
    assert bytes(whole) == bytes(len(whole)), "a fourth part is none of the whole"
    view = held.pop()[10:20].toreadonly()
    held.clear()
    gc.collect()
    assert not parts.claim(), "a view of a part is still there"
    parts.free()
    del view
    gc.collect()
    assert parts.claim()
    apart = parts.take()
    apart[:] = b"x" * 4096
    assert bytes(whole) == bytes(len(whole)), "what is claimed is given to nobody"
    parts.free()
    again = parts.take()
    again[:] = b"y" * 4096
    assert bytes(whole) != bytes(len(whole))
