"""Where a default looks for its sequence, told from what the server writes."""

from __future__ import annotations

import pytest

from agent.engines.mariadb.dumps.sequence_uses import ForeignSequenceError, moved


@pytest.mark.parametrize(
    ("text", "led"),
    [
        ("nextval(`shop`.`sq`)", "nextval(`new`.`sq`)"),
        ("(1 + LASTVAL( `shop` . `sq`))", "(1 + LASTVAL( `new`. `sq`))"),
        ("setval(`shop`.`s``q`,5,1,0)", "setval(`new`.`s``q`,5,1,0)"),
        ("nextval(`new`.`sq`)", "nextval(`new`.`sq`)"),
        ("nextval(shop . sq)", "nextval(`new`. sq)"),
        ("nextval(`sq`)", "nextval(`sq`)"),
        ("concat('nextval(`shop`.`sq`)',`shop`.`a`)", "concat('nextval(`shop`.`sq`)',`shop`.`a`)"),
        ("'it''s \\' nextval(`other`.`sq`)'", "'it''s \\' nextval(`other`.`sq`)'"),
        ("`nextval(` int, `shop`.`x`", "`nextval(` int, `shop`.`x`"),
    ],
    ids=["next", "blanks", "odd name", "there already", "no quotes", "no schema", "string", "quoted", "name"],
)
def test_a_sequence_is_looked_for_in_another_schema_and_nothing_else_is_changed(text: str, led: str) -> None:
    assert moved(text, "shop", "new") == led


@pytest.mark.parametrize(("schema", "told"), [("`sh``op`", "sh`op"), ("shöp1", "shöp1")])
def test_a_sequence_of_another_schema_is_told_by_its_name(schema: str, told: str) -> None:
    with pytest.raises(ForeignSequenceError) as error:
        moved(f"x int DEFAULT nextval({schema}.`sq`)", "shop", "new")

    assert error.value.schema == told
