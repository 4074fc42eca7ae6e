"""A configuration is read so that nothing is left out that MinIO may read in it."""

from __future__ import annotations

import json

import pytest

from agent.engines.minio.drive import call_logs, event_targets, root_access
from agent.engines.minio.drive.configuration import Setting, settings_in


def _configuration(*settings: str, subsystem: str = "audit_webhook") -> bytes:
    """One target with these settings, each in JSON."""
    return f'{{"{subsystem}": {{"one": [{", ".join(settings)}]}}}}'.encode()


def _setting(key: str, value: str) -> str:
    return json.dumps({"key": key, "value": value})


_WHERE = _setting("endpoint", "http://me:secret@example.com/a")
_TOLD = ["audit_webhook http://example.com"]


def test_settings_are_read_by_subsystem_and_target() -> None:
    assert settings_in(_configuration(_WHERE)) == [
        Setting("audit_webhook", "one", "endpoint", "http://me:secret@example.com/a")
    ]


def test_half_a_character_is_read_as_a_server_reads_it() -> None:
    [setting] = settings_in(_configuration(r'{"key": "k", "value": "\ud800/\ud83d\ude00"}')) or []

    assert setting.value == "\ufffd/\U0001f600"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000])
def test_what_is_no_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON"):
        settings_in(content)


def test_an_encrypted_configuration_is_not_read() -> None:
    assert settings_in(b"\x81\xff") is None
    assert root_access.deciding_in(None) == {root_access.UNREAD: []}


@pytest.mark.parametrize("value", ["on", "ON", "true", "True", "t", "1", "enabled", "Enabled"])
def test_a_collector_is_told_by_each_word_that_a_server_takes(value: str) -> None:
    settings = settings_in(_configuration(_setting("enable", value), _WHERE)) or []

    assert call_logs.collectors_in(settings) == _TOLD


@pytest.mark.parametrize(
    "enabled",
    [
        ('{"Key": "enable", "VALUE": "on"}',),
        ('{"key": "x", "key": "enable", "value": "off", "value": "on"}',),
        (_setting("enable", "on"), _setting("enable", "off")),
        (_setting("enable", "off"), _setting("enable", "on")),
    ],
)
def test_a_collector_is_told_however_its_setting_is_written(enabled: tuple[str, ...]) -> None:
    settings = settings_in(_configuration(*enabled, _WHERE)) or []

    assert call_logs.collectors_in(settings) == _TOLD


@pytest.mark.parametrize("enabled", [(), (_setting("enable", "off"),), (_setting("enable", "disabled"),)])
def test_one_that_is_off_is_not(enabled: tuple[str, ...]) -> None:
    settings = settings_in(_configuration(*enabled, _WHERE)) or []

    assert call_logs.collectors_in(settings) == []


def test_services_that_are_told_of_changes_are_known_by_the_same_words() -> None:
    settings = settings_in(_configuration(_setting("enable", "true"), subsystem="notify_postgres")) or []

    assert event_targets.configured_in(settings) == ["one:postgresql"]


@pytest.mark.parametrize(
    "settings",
    [
        (_setting("root_access", "off"),),
        ('{"KEY": "root_access", "Value": "off"}',),
        (_setting("root_access", "on"), _setting("root_access", "off")),
        (_setting("root_access", "off"), _setting("root_access", "on")),
    ],
)
def test_what_may_turn_off_roots_access_is_told(settings: tuple[str, ...]) -> None:
    found = settings_in(_configuration(*settings, subsystem="api"))

    assert root_access.deciding_in(found) == {"api root_access": ["off"]}
