"""Sequences in a dump: what a fingerprint says of them, and which statements set them."""

from __future__ import annotations

import hashlib

import pytest

from agent.engines.mariadb.dumps.sequence_texts import SequenceHasher, SequencePositions

HOW = b"start with 1 minvalue 1 maxvalue 9 increment by 1 cache 1000 nocycle ENGINE=InnoDB"
DUMP = (
    b"-- MariaDB dump\n\n--\n-- Sequence structure for `s`\n--\n\nDROP SEQUENCE IF EXISTS `s`;\n"
    b"CREATE SEQUENCE `s` " + HOW + b";\nDO SETVAL(`s`, 5, 0);\n\n"
    b"CREATE SEQUENCE `o``d` " + HOW + b";\nSELECT SETVAL(`o``d`, -1001, 0);\n\n"
    b"--\n-- Table structure for table `t`\n--\nCREATE SEQUENCE `in a body` start with 1;\n"
)


@pytest.mark.parametrize("size", [1, 7, len(DUMP)])
def test_a_fingerprint_has_the_next_number_of_each_sequence_and_how_it_counts(size: int) -> None:
    hasher = SequenceHasher()
    for at in range(0, len(DUMP), size):
        hasher.add(DUMP[at : at + size])

    how = hashlib.sha256(HOW).hexdigest()
    assert hasher.parts == {"sequence s": f"next 5, {how}", "sequence o``d": f"next -1001, {how}"}


@pytest.mark.parametrize(
    ("start", "increment", "to", "sent"),
    [
        (1, 1, 1001, b"DO SETVAL(`s`, 1001, 0)"),
        (100, 1, 2, b"ALTER SEQUENCE `s` RESTART 2"),
        (-1, -1, -1001, b"DO SETVAL(`s`, -1001, 0)"),
        (-1, -1, 5, b"ALTER SEQUENCE `s` RESTART 5"),
        (1, 0, -1, b"DO SETVAL(`s`, -1, 0)"),
    ],
)
def test_a_sequence_whose_next_number_lies_before_its_start_is_restarted(
    start: int, increment: int, to: int, sent: bytes
) -> None:
    positions = SequencePositions()
    positions.corrected(b"CREATE SEQUENCE `s` start with %d minvalue -9 increment by %d nocycle" % (start, increment))

    assert positions.corrected(b"DO SETVAL(`s`, %d, 0)" % to) == sent
    assert positions.corrected(b"DO SETVAL(`other`, %d, 0)" % to).startswith(b"DO SETVAL")
