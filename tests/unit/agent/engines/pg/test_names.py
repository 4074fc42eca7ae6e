from __future__ import annotations

from agent.engines.pg.server.names import Label


def test_a_label_is_read_back_and_one_of_another_version_is_none_of_ours() -> None:
    label = Label(of="shop", app_id="shop.db", key="0123456789ab", comment='the "shop"')
    text = label.to_text()

    assert Label.from_text(text) == label
    assert Label.from_text(text.replace('"mathison_data":1', '"mathison_data":2')) is None
    assert Label.from_text("a comment") is Label.from_text(None) is None
