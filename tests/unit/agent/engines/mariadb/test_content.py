"""What of a database goes into its fingerprint, and what does not matter there."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from agent.engines.mariadb.exports.content import TableHasher, digest_of
from agent.engines.mariadb.server.programs import Listed, Shown

VIEW = Shown(
    Listed("view", "v", "shop@%", "", ""),
    "CREATE ALGORITHM=UNDEFINED DEFINER=`shop`@`%` SQL SECURITY DEFINER VIEW `v` AS select 1 from `shop`.`t`",
    charset="utf8mb4",
    collation="utf8mb4_general_ci",
)
EVENT = Shown(
    Listed("event", "e", "shop@%", "ENABLED", ""),
    "CREATE DEFINER=`shop`@`%` EVENT `e` ON SCHEDULE EVERY 1 DAY ON COMPLETION NOT PRESERVE ENABLE DO SET @a = 1",
    charset="utf8mb4",
    collation="utf8mb4_general_ci",
    time_zone="SYSTEM",
)


def other(shown: Shown, old: str, new: str) -> Shown:
    """With another text."""
    assert old in shown.text
    return msgspec.structs.replace(shown, text=shown.text.replace(old, new))


def test_the_account_and_the_database_of_a_definition_do_not_matter() -> None:
    moved = other(VIEW, "`shop`.`t`", "`other`.`t`")

    assert digest_of(other(VIEW, "DEFINER=`shop`@`%`", "DEFINER=`a``b`@`localhost`"), "shop") == digest_of(VIEW, "shop")
    assert digest_of(other(VIEW, "DEFINER=`shop`@`%`", 'DEFINER="a"@"%"'), "shop") == digest_of(VIEW, "shop")
    assert digest_of(moved, "other") == digest_of(VIEW, "shop") != digest_of(moved, "shop")


@pytest.mark.parametrize(
    "changed",
    [
        other(VIEW, "select 1", "select 2"),
        other(VIEW, "SECURITY DEFINER", "SECURITY INVOKER"),
        msgspec.structs.replace(VIEW, collation="utf8mb4_bin"),
        msgspec.structs.replace(VIEW, sql_mode="ANSI_QUOTES"),
    ],
)
def test_how_a_definition_is_made_matters(changed: Shown) -> None:
    assert digest_of(changed, "shop") != digest_of(VIEW, "shop")


def test_the_fingerprint_of_a_definition_is_the_one_of_earlier_releases() -> None:
    odd = other(VIEW, "select 1", "select 'it''s \\\\ \"é\" \n\x01\x7f\u2028\x81\ufffd 🐻'")

    assert digest_of(VIEW, "shop") == "37a14b10e54e64a8069b5f67b510a9fb66154ee5e305998097b089edd9d1f41c"
    assert digest_of(odd, "shop") == "c208cd509ca50f6b4d890114106e9a7121f29cd830da2a4743fd3f0b5dbc0280"


def test_bytes_that_are_no_text_count_as_they_are() -> None:
    told = [
        other(VIEW, "select 1", f"select '{odd}'") for odd in ("\udcff", "\udcfe", "\udcff\udcfe", "\ufffd", "?", "ÿ")
    ]

    assert len({digest_of(shown, "shop") for shown in told}) == len(told)


def test_an_event_that_is_staged_counts_as_it_was_at_its_source() -> None:
    staged = [
        msgspec.structs.replace(
            other(EVENT, "ENABLE DO", f"{words} DO"), listed=Listed("event", "e", "x@%", status, "")
        )
        for words, status in (("DISABLE", "DISABLED"), ("DISABLE ON REPLICA", "SLAVESIDE_DISABLED"))
    ]
    disabled = msgspec.structs.replace(
        other(EVENT, "ENABLE", "DISABLE"), listed=Listed("event", "e", "", "DISABLED", "")
    )

    assert digest_of(staged[0], "shop", is_staged=True) == digest_of(EVENT, "shop")
    assert digest_of(staged[1], "shop", is_staged=True) == digest_of(disabled, "shop") != digest_of(EVENT, "shop")


def test_what_looks_like_rows_in_the_body_of_a_trigger_is_not_counted() -> None:
    rows = b"-- Dumping data for table `t`\n--\n\nINSERT INTO `t` VALUES\n(1),\n(2);\n"
    rows += b"/*!40000 ALTER TABLE `t` ENABLE KEYS */;\n"
    body = b"/*!50003 CREATE*/ /*!50003 TRIGGER x AFTER INSERT ON t FOR EACH ROW\nINSERT INTO log VALUES\n(3) */;;\n"
    found = []
    for pieces in ([rows], [rows + body], [(rows + body)[at : at + 7] for at in range(0, len(rows + body), 7)]):
        hasher = TableHasher()
        for piece in pieces:
            hasher.add(piece)
        found.append(hasher.parts)

    assert found[0] == found[1] == found[2]
    assert found[0]["table t"].startswith("2 rows, ")


HOSTILE_ROWS = [
    rb"(1,'a''b',NULL)",
    rb"(2,'),(',-0.5)",
    rb"(3,'it\'s),(not',0x00FF)",
    rb"(4,'ends in a backslash\\','),(')",
    rb"(5,'\\\'),(',_binary '\0')",
    rb"(6,'\n(7),\n;\n/*!40000 ALTER TABLE `t` ENABLE KEYS */;\n','')",
    rb"(7,'',';')",
]


@pytest.mark.parametrize("count", range(1, len(HOSTILE_ROWS) + 1))
@pytest.mark.parametrize("table", [b"`t`", b"`(t`", b"`a``b VALUES (`"])
def test_the_digest_is_of_the_rows_however_the_client_lays_them_out(table: bytes, count: int) -> None:
    rows = HOSTILE_ROWS[:count]
    start = b"-- a dump\n--\n-- Dumping data for table %b\n--\n\nLOCK TABLES %b WRITE;\n" % (table, table)
    end = b"/*!40000 ALTER TABLE %b ENABLE KEYS */;\nUNLOCK TABLES;\n(8),\n(9);\n" % table
    insert = b"INSERT INTO %b VALUES" % table
    one_a_line = b"".join(
        insert + b"\n" + b",\n".join(some) + b";\n" for some in (rows[: count // 2], rows[count // 2 :]) if some
    )
    with_columns = b"INSERT INTO %b (`a`, `b VALUES (`, `c`) VALUES " % table
    layouts = [
        one_a_line,
        insert + b" " + b",".join(rows) + b";\n",
        with_columns + b",\n".join(rows) + b";\n",
        with_columns + b",".join(rows) + b";\n",
    ]
    expected = f"{count} rows, {hashlib.sha256(b''.join(rows)).hexdigest()}"

    for layout in layouts:
        dump = start + layout + end
        for size in (1, 7, 50, 120, len(dump)):
            hasher = TableHasher()
            for at in range(0, len(dump), size):
                hasher.add(dump[at : at + size])

            assert list(hasher.parts.values()) == [expected]


def test_columns_that_do_not_count_are_left_out_of_the_digest_however_the_client_lays_rows_out() -> None:
    found = set()
    for year, layout in (
        (2026, b"VALUES\n%b,\n%b;\n"),
        (2027, b"VALUES %b,%b;\n"),
        (1999, b"(`a`, `b`) VALUES %b,\n%b;\n"),
    ):
        rows = tuple(b"('it\\'s),(',%d,'%d-01-01',NULL)" % (number, year) for number in (1, 2))
        hasher = TableHasher()
        hasher.leave_out("t", [False, False, True, False])
        hasher.add(b"\n-- Dumping data for table `t`\n--\n\nINSERT INTO `t` " + layout % rows)
        found.add(hasher.parts["table t"])

    counted = rb"('it\'s),(',1,,NULL)('it\'s),(',2,,NULL)"
    assert found == {f"2 rows, {hashlib.sha256(counted).hexdigest()}"}
