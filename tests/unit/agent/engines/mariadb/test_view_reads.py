"""What a view reads is told from what the server says of it; the texts are those of MariaDB 10.11."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.view_reads import moved, tables_read
from agent.engines.mariadb.server.programs import Program, ordered

VIEWS = {
    "with b as (select `t`.`a` AS `a` from `t`)select `b`.`a` AS `a` from `b`": {"`t`"},
    "with `b` as (select `t`.`a` AS `a` from `t`)select `b`.`a` AS `a` from `b`": {"`t`"},
    "with b as (select `b`.`a` AS `a` from `b`)select `b`.`a` AS `a` from `b`": {"`b`"},
    "with b as (select 1 AS `a`)select `b`.`a` AS `a` from (`b` join `x`.`b` `c`)": {"`b`"},
    "with recursive b(`n`) as (select 1 AS `n` union select `b`.`n` + 1 AS `n+1` from `b` where `b`.`n` < 9) CYCLE `n` "
    "RESTRICT , c as (select `b`.`n` AS `n` from `b`)select `c`.`n` AS `n` from `c` where `c`.`n` in (with d as ("
    "select 1 AS `1`)select `d`.`1` from `d`)": set(),
    "with recursive p as (select 1 AS `n` union select `b`.`n` AS `n` from `b`), b as (select 1 AS `n` union select "
    "`p`.`n` AS `n` from `p`)select `p`.`n` AS `n` from `p`": set(),
    "select `q`.`a` AS `a` from ((with b as (select `t`.`a` AS `a` from `t`)select `b`.`a` AS `a` from `b`) `q` join "
    "`b` on(`q`.`a` = `b`.`a`)) group by `q`.`a` with rollup": {"`t`", "`b`"},
    "select `t`.`a` AS `a` from ((`t` left join (`t` `x` join `c`) on(`t`.`a` = `x`.`a`)) join `b` `c`) where exists("
    "select 1 from `d` limit 1)": {"`t`", "`b`", "`c`", "`d`"},
    "select extract(year from `t`.`made`) AS `a`,trim(both 'x' from `t`.`c`) AS `b`,'from `d`' AS `c` from `t`": {
        "`t`"
    },
    "select `j`.`a` AS `a` from (`x`.`b` join JSON_TABLE('[]', '$[*]' COLUMNS (`a` int(11) PATH '$.a')) `j`)": {"`b`"},
    "select 1 AS `a` from ((((`a``(b` `q`))))": {"`a``(b`"},
    "select 1 AS `a` from `t` with cascaded check option": {"`t`"},
}


@pytest.mark.parametrize("text", VIEWS)
def test_a_view_reads_what_is_named_in_it_as_a_table_and_not_made_there(text: str) -> None:
    made = f"CREATE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `v` AS {text}"

    assert tables_read(made) == VIEWS[text]


def test_a_view_that_makes_what_is_called_as_another_view_does_not_need_it() -> None:
    def view(name: str, text: str) -> Program:
        return Program("view", name, f"CREATE ALGORITHM=UNDEFINED VIEW `{name}` AS {text}", "utf8", "")

    first = view("first", "with second as (select 1 AS `a`)select `second`.`a` AS `a` from `second`")
    second = view("second", "select `first`.`a` AS `a` from `first`")

    assert ordered([second, first]) == ordered([first, second]) == [first, second]


@pytest.mark.parametrize(
    ("view", "told"),
    [
        ("select `old`.`a` AS `a` from `old` where `old`.`a` > 0", ""),
        ("select `old`.`a` AS `a` from (`x`.`t` `old` join `x`.`old` on(`x`.`old`.`a` = `old`.`a`))", ""),
        ("select `old`.`old`.`a` AS `a` from `old`.`old`", "select `new`.`old`.`a` AS `a` from `new`.`old`"),
        (
            "select `old`.`a` AS `a` from (`x` `old` straight_join `old`.`t`)",
            "select `old`.`a` AS `a` from (`x` `old` straight_join `new`.`t`)",
        ),
        ("select trim('x' from `old`.`a`) AS `a` from `old`", ""),
        (
            "select nextval(`old`.`s`) AS `a`,`old`.`f`(1) AS `b`",
            "select nextval(`new`.`s`) AS `a`,`new`.`f`(1) AS `b`",
        ),
        ("VIEW `old`.`v` AS select 1 AS `a`", "VIEW `new`.`v` AS select 1 AS `a`"),
        (" `old`.`v` AS select 1 AS `a`", " `new`.`v` AS select 1 AS `a`"),
    ],
)
def test_a_column_is_not_moved_whose_table_is_called_as_the_schema(view: str, told: str) -> None:
    assert moved(view, "old", "new") == (told or view)
    assert moved(view, "old", "") == (told or view).replace("`new`.", "")
