"""Blocks as they travel: what an agent encodes, a process server reads back to the byte, or refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farshore_engine.blocks.content import digest_block
from farshore_engine.blocks.encoded import EncodedBlocks, decode, encode, parse_payload, payload_of
from farshore_engine.blocks.grid import BLOCK_SIZE

KEY = bytes(range(32))


def block(kind: str) -> bytes:
    return {
        "zeros": bytes(BLOCK_SIZE),
        "text": b"farshore" * (BLOCK_SIZE // 8),
        "noise": np.random.default_rng(7).bytes(BLOCK_SIZE),
        "a last byte": bytes(BLOCK_SIZE - 1) + b"x",
    }[kind]


KINDS = st.lists(st.sampled_from(("zeros", "text", "noise", "a last byte")), min_size=1, max_size=6)


@given(KINDS, st.integers(0, BLOCK_SIZE - 1))
@settings(max_examples=60, deadline=None)
def test_what_is_encoded_comes_back(kinds: list[str], cut: int) -> None:
    plain = b"".join(map(block, kinds))
    data = plain[: len(plain) - cut]
    plain = data + bytes(cut)
    zero, encoded = encode(KEY, data)
    blocks = [plain[at : at + BLOCK_SIZE] for at in range(0, len(plain), BLOCK_SIZE)]
    assert zero.tolist() == [not any(one) for one in blocks]
    kept = [one for one in blocks if any(one)]
    payload = payload_of([encoded])
    assert len(payload) == encoded.size
    parsed = parse_payload(memoryview(payload), len(kept))
    assert [decode(KEY, parsed, at) for at in range(len(parsed))] == kept
    assert [row.tobytes() for row in parsed.digests] == [digest_block(KEY, one) for one in kept]


def test_blocks_of_several_reads_make_one_payload() -> None:
    one, two = encode(KEY, block("text"))[1], encode(KEY, block("noise") + block("text"))[1]
    parsed = parse_payload(memoryview(payload_of([one, two])), 3)
    assert [decode(KEY, parsed, at) for at in range(3)] == [block("text"), block("noise"), block("text")]


@given(st.binary(max_size=300), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_or_well_formed(payload: bytes, count: int) -> None:
    try:
        parsed = parse_payload(memoryview(payload), count)
    except ValueError:
        return
    for at in range(len(parsed)):
        with pytest.raises(ValueError, match="a block"):
            decode(KEY, parsed, at)


def test_a_block_that_is_longer_compressed_travels_as_it_is() -> None:
    _, encoded = encode(KEY, block("noise"))
    assert isinstance(encoded, EncodedBlocks)
    assert [len(content) for content in encoded.contents] == [BLOCK_SIZE]
