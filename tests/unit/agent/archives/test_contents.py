"""A file's sum is of its bytes, whatever pieces and holes they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.archives import contents
from agent.archives.contents import ContentSum
from agent.archives.members import Kind, Member

WINDOW = contents.WINDOW_BYTES


def sum_of(pieces: list[tuple[int, bytes]], size: int) -> str:
    content = ContentSum("test/1")
    content.begin(Member("folder/file", Kind.FILE, size=size))
    for offset, piece in pieces:
        content.add(offset, piece)
    content.end()
    return content.fingerprint().sha256


def test_a_hole_counts_as_the_zeros_that_it_reads_as() -> None:
    text = b"x" * 100
    size = 3 * WINDOW + 7
    whole = text + bytes(2 * WINDOW - 100) + text + bytes(size - 2 * WINDOW - 100)

    in_one = sum_of([(start, whole[start : start + WINDOW]) for start in range(0, size, WINDOW)], size)
    with_holes = sum_of([(0, text), (2 * WINDOW, text)], size)

    assert in_one == with_holes
    assert in_one != sum_of([(0, text), (2 * WINDOW + 1, text)], size)


@given(cuts=st.lists(st.integers(0, 2 * WINDOW + 500), max_size=6))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    size = 2 * WINDOW + 500
    whole = bytes(range(1, 251)) * (size // 250 + 1)
    ends = [*sorted(cuts), size]
    starts = [0, *sorted(cuts)]

    found = sum_of([(a, whole[a:b]) for a, b in zip(starts, ends, strict=True)], size)

    assert found == sum_of([(0, whole[:size])], size)


def test_the_order_of_entries_does_not_matter() -> None:
    members = [Member("a", Kind.DIRECTORY), Member("a/b", Kind.FILE), Member("c", Kind.SYMLINK, link_target="a")]
    found = []
    for ordered in (members, list(reversed(members))):
        content = ContentSum("test/1")
        for member in ordered:
            content.begin(member)
            content.end()
        found.append(content.fingerprint())

    assert found[0] == found[1]
    assert sorted(found[0].parts) == ["below 'a'", "elsewhere"]


def test_bytes_that_look_like_the_next_window_are_not_taken_for_it() -> None:
    size = 2 * WINDOW

    parted = sum_of([(0, b"A"), (WINDOW, b"B")], size)

    assert parted != sum_of([(0, b"A" + (1).to_bytes(8) + b"B")], size)
    assert parted != sum_of([(0, b"A" + (1).to_bytes(8) + (1).to_bytes(8) + b"B")], size)


@pytest.mark.parametrize("names", [("\udcff", "\\xff"), ("x" * 300 + "a" + "x" * 300, "x" * 300 + "b" + "x" * 300)])
def test_folders_whose_names_print_alike_all_count(names: tuple[str, str]) -> None:
    found = []
    for content_of_first in (b"one", b"two"):
        content = ContentSum("test/1")
        for name, text in zip(names, (content_of_first, b"same"), strict=True):
            content.add_member(Member(f"{name}/file", Kind.FILE, size=len(text)), [(0, text)])
        found.append(content.fingerprint().sha256)

    assert found[0] != found[1]
