"""Query parameters are read strictly."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from common.errors import InvalidRequestError
from controller.api.queries import read_query


def test_known_parameters_and_options_are_read() -> None:
    request = make_mocked_request("GET", "/?format=sql&option.tables=a%20b&dry_run=true")

    query = read_query(request, "format", "dry_run", takes_options=True)

    assert query.text("format") == "sql"
    assert query.text("absent") == ""
    assert query.flag("dry_run")
    assert query.options == {"tables": "a b"}


@pytest.mark.parametrize(
    "text",
    [
        "colour=red",
        "format=a&format=b",
        "option.a=1&option.a=2",
        "format=a&option.format=b",
        "option.format=a&format=b",
        "option.=1",
        "Format=a",
    ],
)
def test_what_is_unknown_or_there_twice_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_query(make_mocked_request("GET", f"/?{text}"), "format", takes_options=True)


def test_a_recipes_option_without_its_prefix_is_told_how_it_is_given() -> None:
    with pytest.raises(InvalidRequestError, match="'secrets' is not known here") as caught:
        read_query(make_mocked_request("GET", "/?secrets=clear"), "format", takes_options=True)

    assert caught.value.next_step == "An option of the app's recipe is given as option.secrets=…"


def test_options_are_refused_where_none_are_taken() -> None:
    with pytest.raises(InvalidRequestError, match=r"'option\.a'"):
        read_query(make_mocked_request("GET", "/?option.a=1"))


@pytest.mark.parametrize("value", ["", "1", "True", "yes", "on"])
def test_a_flag_is_true_or_false(value: str) -> None:
    query = read_query(make_mocked_request("GET", f"/?dry_run={value}"), "dry_run")

    with pytest.raises(InvalidRequestError, match="'dry_run'"):
        query.flag("dry_run")
