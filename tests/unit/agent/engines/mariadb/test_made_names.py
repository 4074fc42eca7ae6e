"""What a file makes, by name: in a server that tells no names apart by their case, one would drop the other."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.made_names import MadeNames
from common.errors import ArchiveIncompatibleError

VIEW = "/*!50001 CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`a`@`%` SQL SECURITY DEFINER */\n"
STAND_IN = "/*!50001 CREATE VIEW `{}` AS SELECT\n 1 AS `id` */"
TRIGGER = "/*!50003 CREATE*/ /*!50003 TRIGGER {} BEFORE INSERT ON `t` FOR EACH ROW SET @a=1 */"


def looked_at(*texts: str, folds_case: bool = True) -> MadeNames:
    found = MadeNames(folds_case=folds_case)
    for line, text in enumerate(texts, 1):
        found.check(text.encode(), line)
    return found


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["CREATE TABLE `Users` (`a` int)", "DROP TABLE IF EXISTS `users`"], "Users and users"),
        (["CREATE TABLE Users (a int)", "INSERT INTO Users VALUES (1)", "create table users (a int)"], "Users"),
        (["CREATE TABLE `Äpfel` (`a` int)", "DROP TABLE IF EXISTS `x`, `äpfel`"], "Äpfel and äpfel"),
        (["CREATE SEQUENCE `Sq` start with 1", "DROP SEQUENCE IF EXISTS `sq`"], "Sq and sq"),
        (["CREATE TABLE `v` (`a` int)", "CREATE TABLE `V` (`a` int)"], "v and V"),
        (["CREATE TABLE `v` (`a` int)", STAND_IN.format("V")], "v and V"),
        ([STAND_IN.format("V"), f"{VIEW}/*!50001 VIEW `v` AS select 1 AS `id` */"], "V and v"),
        ([TRIGGER.format("`Tg`"), "DROP TRIGGER IF EXISTS `tg`"], "Tg and tg"),
        ([TRIGGER.format("Shop.Tg"), TRIGGER.format("`tg`")], "Tg and tg"),
    ],
)
def test_names_that_differ_in_case_alone_are_refused_where_the_server_tells_them_not_apart(
    texts: list[str], names: str
) -> None:
    with pytest.raises(ArchiveIncompatibleError, match=f"Line {len(texts)}: .*{names}"):
        looked_at(*texts)

    assert sum(looked_at(*texts, folds_case=False).counts.values()) > 0


def test_what_is_there_at_least_at_the_end_is_counted() -> None:
    found = looked_at(
        "DROP TABLE IF EXISTS `users`",
        "CREATE TABLE IF NOT EXISTS `Users` (`a` int)",
        "CREATE TABLE IF NOT EXISTS `Users` (`a` int)",
        "CREATE TABLE `gone` (`a` int)",
        "CREATE TABLE `old view` (`a` int)",
        "CREATE SEQUENCE `sq` start with 1",
        "INSERT INTO `Users` VALUES ('CREATE TABLE `x`')",
        STAND_IN.format("v"),
        TRIGGER.format("`users`"),
        "DROP TABLE IF EXISTS `old view`",
        "DROP TABLE `gone`",
        "DROP VIEW IF EXISTS `v`",
        f"{VIEW}/*!50001 VIEW `v` AS select 1 AS `id` */",
        "CREATE DEFINER=`a`@`%` FUNCTION `f`() RETURNS int RETURN 1",
    )

    assert found.counts == {"tables": 2, "views": 1, "triggers": 1}
