"""What changed outside of a database is told briefly, with the statement that puts it back."""

from __future__ import annotations

import pytest

from agent.engines.pg.imports.outside import Key, Outside, differences

BEFORE: Outside = {
    Key("name", "5"): 'my "s" db',
    Key("owner", "5"): "own",
    Key("grant", "5", "TEMPORARY", ""): "granted",
    Key("setting", "own", "search_path", "5"): '"$user", public',
    Key("member", "own", "", "group"): "with admin option",
}


@pytest.mark.parametrize(
    ("key", "now", "statements"),
    [
        (Key("owner", "5"), "group", ['ALTER DATABASE "my ""s"" db" OWNER TO "own"']),
        (Key("grant", "5", "TEMPORARY", ""), None, ['GRANT TEMPORARY ON DATABASE "my ""s"" db" TO PUBLIC']),
        (
            Key("grant", "5", "CREATE", "x"),
            "granted",
            ['REVOKE CREATE ON DATABASE "my ""s"" db" FROM "x" CASCADE'],
        ),
        (
            Key("setting", "own", "search_path", "5"),
            "evil",
            ["""ALTER ROLE "own" IN DATABASE "my ""s"" db" SET "search_path" TO '$user', 'public'"""],
        ),
        (Key("setting", "", "work_mem", "5"), "1MB", ['ALTER DATABASE "my ""s"" db" RESET "work_mem"']),
        (Key("member", "x", "", "own"), "granted", ['REVOKE "own" FROM "x"']),
        (Key("member", "own", "", "group"), None, ['GRANT "group" TO "own" WITH ADMIN OPTION']),
        (Key("role", "own", "rolconnlimit"), "0", []),
    ],
)
def test_each_difference_has_the_statement_that_puts_it_back(key: Key, now: str | None, statements: list[str]) -> None:
    after = {**BEFORE, key: now} if now is not None else {one: BEFORE[one] for one in BEFORE if one != key}

    [found] = differences(BEFORE, after)

    assert [one.as_string(None) for one in found.remedy] == statements


def test_a_renamed_database_is_told_by_its_own_name_and_its_statements_by_the_present_one() -> None:
    after = {**BEFORE, Key("name", "5"): "gone", Key("owner", "5"): "x" * 200}

    name, owner = differences(BEFORE, after)

    assert name.sentence == 'name of database my "s" db: my "s" db became gone'
    assert [one.as_string(None) for one in owner.remedy] == ['ALTER DATABASE "gone" OWNER TO "own"']
    assert len(owner.sentence) < 120


def test_nothing_is_told_where_all_is_as_before() -> None:
    assert differences(BEFORE, dict(BEFORE)) == []
