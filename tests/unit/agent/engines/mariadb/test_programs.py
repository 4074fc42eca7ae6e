"""What is told from the text of definitions, as the server says them."""

from __future__ import annotations

import itertools

import pytest

from agent.engines.mariadb.dumps.view_reads import moved
from agent.engines.mariadb.server.programs import Program, ordered, with_status
from common.errors import ToolFailedError


def view(name: str, query: str) -> Program:
    return Program(
        "view", name, f"CREATE ALGORITHM=UNDEFINED SQL SECURITY DEFINER VIEW `{name}` AS {query}", "utf8", ""
    )


def test_views_come_after_those_that_they_read_wherever_else_their_names_are_written() -> None:
    views = [
        view("orders", "select `t`.`customers` AS `customers`,'from `customers`' AS `x` from (`t` join `s` `a`)"),
        view("customers", "select `orders`.`all` AS `orders` from `orders`"),
        view(
            "all",
            "select 1 AS `customers` from ((`shop`.`t` `x` join `shop`.`customers` on(`x`.`a` = `customers`.`b`)))",
        ),
        view("nested", "select `n`.`c` AS `c` from (select `all`.`customers` AS `c` from `all`) `n`"),
    ]

    for shuffled in itertools.permutations(views):
        assert [found.name for found in ordered(shuffled)] == ["orders", "customers", "all", "nested"]


def test_views_that_read_each_other_are_refused() -> None:
    with pytest.raises(ToolFailedError, match="The views a, b name each other"):
        ordered([view("a", "select 1 AS `c` from `b`"), view("b", "select 1 AS `c` from `a`")])


@pytest.mark.parametrize(
    "name", ["`e`", "`x ON COMPLETION PRESERVE DISABLE`", "`a``b ON COMPLETION PRESERVE ENABLE `", '"e"']
)
def test_the_status_of_an_event_is_where_its_schedule_ends(name: str) -> None:
    schedule = "EVERY 1 DAY STARTS '2037-01-01 00:00:00' ON COMPLETION NOT PRESERVE"
    rest = "COMMENT ' ON COMPLETION PRESERVE ENABLE ' DO SET @a = 1"

    changed = with_status(f"CREATE EVENT {name} ON SCHEDULE {schedule} DISABLE ON SLAVE {rest}", is_enabled=True)

    assert changed == f"CREATE EVENT {name} ON SCHEDULE {schedule} ENABLE {rest}"


def test_a_view_moves_between_schemas_without_its_strings() -> None:
    text = "select `old`.`f`(1) AS `old`,'`old`.`t`' AS `a`,'it\\'s `old`.' AS \"`old`.\" from `old`.`t`"

    assert moved(text, "old", "n`w") == text.replace("`old`.`f`", "`n``w`.`f`").replace("from `old`", "from `n``w`")
    assert moved(text, "old", "") == text.replace("`old`.`f`", "`f`").replace("from `old`.", "from ")
