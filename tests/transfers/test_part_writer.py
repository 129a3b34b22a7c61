# SPDX-License-Identifier: Apache-2.0
"""What the writers count of the bytes that are read into their buffers."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_capillary._storage.part_writer import HashingWriter, PartWriter
from airflow_provider_capillary._storage.stores.base import PartStore

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20


class Memory(PartStore):
    """Keeps the object in this process."""

    workers = 3

    @classmethod
    def supports(cls, fs: Any) -> bool:
        return False

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.written: bytes | None = None

    def exists(self) -> bool:
        return self.written is not None

    def stored_checksum(self) -> None:
        return None

    def send(self, number: int, data: bytes | bytearray) -> int:
        self.parts[number] = bytes(data)
        return number

    def finish(self, sent: list[int], **_: Any) -> None:
        self.written = b"".join(self.parts[number] for number in sent)


def part_writer() -> PartWriter:
    return PartWriter(Memory(), note=lambda _: None)


def fill(writer: HashingWriter, *blocks: bytes) -> None:
    for block in blocks:
        left = block
        while left:
            room = writer.room()
            count = min(len(room), len(left))
            room[:count] = left[:count]
            writer.add(count)
            left = left[count:]


@pytest.mark.parametrize("make", [HashingWriter, part_writer])
@pytest.mark.parametrize(
    ("blocks", "lines"),
    [
        ([], 0),
        ([b"a"], 1),
        ([b"a\n"], 1),
        ([b"a\nb"], 2),
        ([b"a", b"\n", b"b\n"], 2),
        ([b"a\n", b"b"], 2),
        ([b"\n\n"], 2),
        ([b"a\r\nb\r\n"], 2),
        ([b"x\n" * MIB, b"y"], MIB + 1),
    ],
    ids=repr,
)
def test_lines_are_counted_whether_or_not_the_last_one_is_ended(
    make: Callable[[], HashingWriter], blocks: list[bytes], lines: int
) -> None:
    writer = make()
    fill(writer, *blocks)
    whole = b"".join(blocks)
    assert (writer.lines, writer.size, writer.sha256) == (lines, len(whole), sha256(whole).hexdigest())


@pytest.mark.parametrize("sizes", [(1,), (MIB,), (8 * MIB,), (8 * MIB + 1,), (MIB - 1,) * 20, (3, 20 * MIB, 5)])
def test_an_object_is_what_was_read_into_the_buffers(sizes: tuple[int, ...]) -> None:
    store = Memory()
    writer = PartWriter(store, note=lambda _: None)
    blocks = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    fill(writer, *blocks)
    writer.commit(overwrite=True, store_checksum=False)
    assert store.written == b"".join(blocks)
    assert {len(part) for part in store.parts.values()} <= {8 * MIB, sum(sizes) % (8 * MIB)}
    assert writer.sha256 == sha256(b"".join(blocks)).hexdigest()
