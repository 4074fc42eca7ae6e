"""The settings file: defaults, and errors that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.settings_files import SettingsError
from controller.settings import load_settings


def load(tmp_path: Path, text: str) -> object:
    file = tmp_path / "controller.toml"
    file.write_text(text)
    return load_settings(file)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.touch()

    settings = load_settings(file)

    assert settings.rest.listen == "127.0.0.1:8080"
    assert settings.grpc.listen == "127.0.0.1:8443"
    assert settings.enrolment.listen == "127.0.0.1:8444"
    assert settings.limits.upload_bytes == 1 << 40
    assert settings.apps == ()


def test_a_full_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(
        """
        discovery = "static"
        state_directory = "/srv/state"
        [rest]
        listen = "[::1]:80"
        tls_certificate_file = "a"
        tls_key_file = "b"
        [limits]
        upload_bytes = 10
        stalled_caller_seconds = 1
        [[apps]]
        id = "shop.db"
        agent = "127.0.0.1:9443"
        recipe = "postgresql"
        """
    )

    settings = load_settings(file)

    assert settings.state == Path("/srv/state")
    assert (settings.limits.upload_bytes, settings.limits.stalled_caller_seconds) == (10, 1.0)
    assert [(app.id, app.agent, app.recipe) for app in settings.apps] == [("shop.db", "127.0.0.1:9443", "postgresql")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "`colour`"),
        ("[rest]\nlisten = 1", "`rest.listen`"),
        ('[rest]\nlisten = "8080"', "`rest.listen`"),
        ('discovery = "magic"', "`discovery`"),
        ("[rest]\nport = 1", "no setting `rest.port`; there are rest.listen, rest.tls_certificate_file, "),
        ("state_dir = 1", "no setting `state_dir`; there are discovery, state_directory, "),
        ('[limits]\nupload_bytes = "1"', "`limits.upload_bytes`"),
        ("[limits]\nupload_bytes = 0", "`limits.upload_bytes`"),
        ("[limits]\nstop_grace_seconds = 0", "`limits.stop_grace_seconds`"),
        ('[rest]\ntls_key_file = "a"', "`rest.tls_certificate_file`"),
        ('[[apps]]\nid = "a.b"\nagent = "x:1"\n[[apps]]\nid = "a.b"\nagent = "x:2"', "`apps[1].id`"),
        ('[[apps]]\nid = "A.b"\nagent = "x:1"', "`apps[0].id`"),
        ('[[apps]]\nid = "a.b.c"\nagent = "x:1"', "`apps[0].id`"),
        ('[[apps]]\nid = "shop"\nagent = "x:1"', "`apps[0].id`"),
        ('[[apps]]\nid = "a.b"\nagent = "x"', "`apps[0].agent`"),
        ('[[apps]]\nagent = "x:1"', "id"),
        ('[[apps]]\nid = "a.b"\nagent = "x:99999"', "`apps[0].agent`"),
        (
            '[[apps]]\nid = "a.b"\nagent = "x:1"\nport = 1',
            "no setting `apps[0].port`; there are apps[0].id, apps[0].agent, ",
        ),
        ("apps = 1", "`apps`"),
        ("= 1", "controller.toml is not TOML: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)

    assert named in str(caught.value)
    assert "controller.toml" in str(caught.value)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text('state_directory = "state"\n[rest]\ntls_certificate_file = "crt"\ntls_key_file = "/etc/key"')

    settings = load_settings(file)

    assert settings.state == tmp_path / "state"
    assert settings.rest.tls_certificate_file == str(tmp_path / "crt")
    assert settings.rest.tls_key_file == "/etc/key"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read"):
        load_settings(tmp_path / "absent.toml")
