"""API tokens and join tokens: only digests are kept, changes count at once."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import InternalError, NotAuthenticatedError
from controller.callers import Scope
from controller.identity.ca import CertificateAuthority
from controller.identity.join_tokens import JoinTokens
from controller.identity.tokens import ApiTokens, TokenError

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(tmp_path: Path, clock: Clock) -> ApiTokens:
    return ApiTokens(tmp_path / "tokens.json", clock=clock)


@pytest.fixture
def join_tokens(tmp_path: Path, clock: Clock) -> JoinTokens:
    return JoinTokens(tmp_path / "join_tokens.json", clock=clock)


def create(tokens: ApiTokens, name: str = "ci", lifetime: dt.timedelta | None = None) -> str:
    return tokens.create(name, scopes=frozenset({Scope.READ}), workspaces=frozenset({"shop"}), lifetime=lifetime)


def test_a_token_makes_its_caller_known(tokens: ApiTokens) -> None:
    secret = create(tokens)

    for authorization in (f"Bearer {secret}", f"bearer  {secret} "):
        caller = tokens.authenticate(authorization, remote_address="192.0.2.1")

        assert (caller.name, caller.scopes) == ("ci", frozenset({Scope.READ}))
        assert caller.workspaces == frozenset({"shop"})
        assert caller.remote_address == "192.0.2.1"


def test_only_a_digest_of_a_token_is_kept(tokens: ApiTokens, tmp_path: Path) -> None:
    secret = create(tokens)

    kept = (tmp_path / "tokens.json").read_text()

    assert secret.startswith("mathison-api.")
    assert secret not in kept
    assert secret.removeprefix("mathison-api.") not in kept
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "Bearer mathison-api.x", "x"])
def test_others_are_not_authenticated(tokens: ApiTokens, authorization: str) -> None:
    create(tokens)

    with pytest.raises(NotAuthenticatedError):
        tokens.authenticate(authorization, remote_address="")


def test_a_token_expires(tokens: ApiTokens, clock: Clock) -> None:
    secret = create(tokens, lifetime=DAY)
    tokens.authenticate(f"Bearer {secret}", remote_address="")

    clock.now = NOW + DAY

    with pytest.raises(NotAuthenticatedError, match="expired"):
        tokens.authenticate(f"Bearer {secret}", remote_address="")


def test_what_another_process_changes_counts_at_once(tokens: ApiTokens, tmp_path: Path, clock: Clock) -> None:
    elsewhere = ApiTokens(tmp_path / "tokens.json", clock=clock)
    assert not tokens.list()

    secret = create(elsewhere)
    assert tokens.authenticate(f"Bearer {secret}", remote_address="").name == "ci"
    elsewhere.revoke("ci")

    with pytest.raises(NotAuthenticatedError):
        tokens.authenticate(f"Bearer {secret}", remote_address="")


def test_nobody_is_let_in_on_what_an_unreadable_file_once_said(tokens: ApiTokens, tmp_path: Path) -> None:
    secret = create(tokens)
    tokens.authenticate(f"Bearer {secret}", remote_address="")

    (tmp_path / "tokens.json").write_text("half a fi")

    with pytest.raises(InternalError):
        tokens.authenticate(f"Bearer {secret}", remote_address="")


def test_commands_that_make_no_sense_are_refused(tokens: ApiTokens) -> None:
    create(tokens)

    with pytest.raises(TokenError, match="already"):
        create(tokens)
    with pytest.raises(TokenError, match="no name"):
        create(tokens, "a b")
    with pytest.raises(TokenError, match="scope"):
        tokens.create("x", scopes=frozenset(), workspaces=None, lifetime=None)
    with pytest.raises(TokenError, match="no token"):
        tokens.revoke("x")


def test_tokens_made_at_once_are_all_kept(tmp_path: Path, clock: Clock) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: create(ApiTokens(tmp_path / "tokens.json", clock=clock), f"t{n}"), range(24)))

    assert len(ApiTokens(tmp_path / "tokens.json", clock=clock).list()) == 24


def join(join_tokens: JoinTokens, tmp_path: Path) -> str:
    authority = CertificateAuthority.open(tmp_path / "ca").certificate
    return join_tokens.create("shop.db", authority=authority, lifetime=DAY).text


def test_a_join_token_is_redeemed_once_but_for_the_same_key(join_tokens: JoinTokens, tmp_path: Path) -> None:
    text = join(join_tokens, tmp_path)

    assert join_tokens.redeem(text, app_id="shop.db", public_key_sha256="a" * 64) == "shop.db"
    assert join_tokens.redeem(text, app_id="shop.db", public_key_sha256="a" * 64) == "shop.db"
    with pytest.raises(NotAuthenticatedError, match="used already"):
        join_tokens.redeem(text, app_id="shop.db", public_key_sha256="b" * 64)


def test_an_agent_of_another_app_does_not_use_a_join_token_up(join_tokens: JoinTokens, tmp_path: Path) -> None:
    text = join(join_tokens, tmp_path)

    with pytest.raises(NotAuthenticatedError, match=r"made for shop\.db, and this agent is that of shop\.web"):
        join_tokens.redeem(text, app_id="shop.web", public_key_sha256="a" * 64)

    assert join_tokens.redeem(text, app_id="shop.db", public_key_sha256="b" * 64) == "shop.db"


def test_a_join_token_that_was_used_is_not_said_to_be_unused(join_tokens: JoinTokens, tmp_path: Path) -> None:
    text = join(join_tokens, tmp_path)
    join_tokens.redeem(text, app_id="", public_key_sha256="a" * 64)

    with pytest.raises(NotAuthenticatedError, match="used already"):
        join_tokens.redeem(text, app_id="shop.web", public_key_sha256="b" * 64)


def test_of_two_agents_with_one_join_token_one_gets_in(tmp_path: Path, clock: Clock) -> None:
    text = join(JoinTokens(tmp_path / "join_tokens.json", clock=clock), tmp_path)

    def redeem(digit: str) -> bool:
        try:
            JoinTokens(tmp_path / "join_tokens.json", clock=clock).redeem(
                text, app_id="shop.db", public_key_sha256=digit * 64
            )
        except NotAuthenticatedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(redeem, "01234567")) == 1


def test_a_join_token_expires_also_for_the_same_key(join_tokens: JoinTokens, tmp_path: Path, clock: Clock) -> None:
    text = join(join_tokens, tmp_path)
    join_tokens.redeem(text, app_id="shop.db", public_key_sha256="a" * 64)

    clock.now = NOW + DAY

    with pytest.raises(NotAuthenticatedError, match="expired"):
        join_tokens.redeem(text, app_id="shop.db", public_key_sha256="a" * 64)


def test_only_a_digest_of_a_join_token_is_kept_and_no_text_repeats_it(join_tokens: JoinTokens, tmp_path: Path) -> None:
    text = join(join_tokens, tmp_path)
    secret = text.split(".")[1]

    with pytest.raises(NotAuthenticatedError) as caught:
        join_tokens.redeem(text.replace(secret, "A" * 43), app_id="shop.db", public_key_sha256="a" * 64)

    assert secret not in (tmp_path / "join_tokens.json").read_text()
    assert "A" * 43 not in caught.value.text


def test_join_tokens_long_expired_are_forgotten(join_tokens: JoinTokens, tmp_path: Path, clock: Clock) -> None:
    first = join(join_tokens, tmp_path)
    clock.now = NOW + 30 * DAY

    join(join_tokens, tmp_path)

    with pytest.raises(NotAuthenticatedError, match="unknown"):
        join_tokens.redeem(first, app_id="shop.db", public_key_sha256="a" * 64)
