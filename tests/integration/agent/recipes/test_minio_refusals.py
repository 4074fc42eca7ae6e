"""What a MinIO app refuses, by reason, with its data as it was."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.engines.minio.directory import importing, swap
from agent.recipes.base import Limits
from common.errors import (
    AppUnavailableError,
    ArchiveDamagedError,
    ArchiveError,
    ArchiveIncompatibleError,
    ArchiveRefusedError,
    ArchiveTruncatedError,
    ArchiveWrongKindError,
    InvalidRequestError,
    LimitExceededError,
    NoSpaceError,
    ServiceError,
    say_unchanged,
)
from common.headers import ArchiveHeader
from common.seals import TarSealWriter
from tests.fakes.imports import MemoryRecord
from tests.fixtures.archives import entry, tar_of
from tests.fixtures.minio_archives import (
    IN_CHECKSUM_ONLY,
    Change,
    link,
    made_up,
    of_2021,
    of_newer_release,
    rebuilt,
    resealed,
    reworded,
    rotted,
    rotted_sum,
    with_member,
)
from tests.fixtures.minio_data import access, fill_users, put, users, view
from tests.fixtures.minio_servers import KMS_KEY, OTHER_KMS_KEY, StartMinio, client_of
from tests.fixtures.variants import variants
from tests.integration.agent.recipes.minio_apps import MinioApp
from tools.servers import MinioServer, minio, short_directory


@dataclass
class Target:
    """A server with data, and archives of it: sealed, and with its secrets in clear."""

    server: MinioServer
    directory: Path
    archive: bytes
    clear: bytes
    before: Any

    @property
    def app(self) -> MinioApp:
        return MinioApp(self.server, self.directory)

    async def require_unchanged(self, app: MinioApp, record: MemoryRecord) -> None:
        await app.recipe.discard(record)
        assert await view(self.server) == self.before
        assert app.leftovers() == []


async def _fill(server: MinioServer) -> None:
    async with client_of(server) as client:
        await client.call("PUT", "files")
        await put(client, "files", "small", b"small")
        await put(client, "files", "large", b"large" * 100_000)
        await client.call("PUT", "locked", headers={"x-amz-bucket-object-lock-enabled": "true"})
        await put(client, "locked", "held", b"locked", x_amz_object_lock_legal_hold="ON")


@pytest.fixture(scope="module")
def target() -> Any:
    with short_directory("minio-refusals") as folder, MinioServer(minio()) as server:

        async def make() -> Target:
            await _fill(server)
            app = MinioApp(server, folder / "agent")
            archive, clear = (await app.export()).file, (await app.export(secrets="clear")).file
            return Target(server, folder / "agent", archive, clear, await view(server))

        yield asyncio.run(make())


def _flipped(target: Target) -> bytes:
    at = target.archive.index(b"large" * 1000)
    return target.archive[:at] + b"X" + target.archive[at + 1 :]


def _without_part(name: str, content: bytes) -> bytes | None:
    return None if name.endswith("/part.1") else content


def _without_meta(name: str, content: bytes) -> bytes | None:
    return None if name == "files/large/xl.meta" else content


def _without_small(name: str, content: bytes) -> bytes | None:
    return None if name == "files/small/xl.meta" else content


def _without_settings(name: str, content: bytes) -> bytes | None:
    return None if name == ".minio.sys/buckets/locked/.metadata.bin/xl.meta" else content


def _with_cut_part(name: str, content: bytes) -> bytes:
    return content[:1000] if name.endswith("/part.1") else content


def _with_cut_meta(name: str, content: bytes) -> bytes:
    return content[:100] if name == "files/small/xl.meta" else content


def _with_other_magic(name: str, content: bytes) -> bytes:
    return b"nonsense" + content[8:] if name == "files/small/xl.meta" else content


def _file(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


def _device() -> tarfile.TarInfo:
    member = tarfile.TarInfo("files/device")
    member.type = tarfile.CHRTYPE
    return member


def _of_old_kind(bucket: str = "files") -> bytes:
    """As MinIO kept objects on a single drive until 2022."""
    kept = {
        ".minio.sys/format.json": b'{"version":"1","format":"fs","id":"0a0b","fs":{"version":"2"}}',
        f".minio.sys/buckets/{bucket}/small/fs.json": b'{"version":"1.0.2","meta":{"etag":"0a0b"}}',
        f"{bucket}/small": b"small",
    }
    return tar_of(*[entry(name, content) for name, content in kept.items()])


def _of_recipe(recipe: str, *, version: int = 1) -> bytes:
    seal = TarSealWriter()
    opening = seal.opening(ArchiveHeader(recipe=recipe, format="tar", format_version=version))
    return opening + seal.closing()


def _with_foreign_files() -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("etc/passwd"))
        archive.addfile(tarfile.TarInfo("README"))
    return output.getvalue()


BAD_FILES: dict[str, tuple[Callable[[Target], bytes], type[ArchiveError], str]] = {
    "a newer MinIO's": (lambda t: rebuilt(t.clear, of_newer_release), ArchiveIncompatibleError, "newer MinIO"),
    "a changed byte": (_flipped, ArchiveDamagedError, "SHA-256"),
    "cut off": (lambda t: t.archive[: len(t.archive) // 2], ArchiveTruncatedError, "cut off"),
    "cut at the last member": (lambda t: t.archive[:-2048], ArchiveTruncatedError, "cut off"),
    "an xl.meta is missing": (lambda t: rebuilt(t.clear, _without_meta), ArchiveDamagedError, "files/large"),
    "an xl.meta is missing, sealed anew": (
        lambda t: resealed(t.clear, _without_meta, keeps_fingerprint=False),
        ArchiveDamagedError,
        "files/large",
    ),
    "settings are missing, with a fingerprint": (
        lambda t: resealed(t.clear, _without_settings),
        ArchiveDamagedError,
        "bucket locked",
    ),
    "an object is missing, with a fingerprint": (
        lambda t: resealed(t.clear, _without_small),
        ArchiveDamagedError,
        "bucket files",
    ),
    "a part is missing": (lambda t: rebuilt(t.clear, _without_part), ArchiveDamagedError, "files/large"),
    "a part is cut": (lambda t: rebuilt(t.clear, _with_cut_part), ArchiveDamagedError, "files/large"),
    "a part has rotted": (
        lambda t: rebuilt(t.clear, rotted("files/large/", "part.1", -1)),
        ArchiveDamagedError,
        "large",
    ),
    "content in an xl.meta has rotted": (
        lambda t: rebuilt(t.clear, rotted("files/small/", "xl.meta", -1)),
        ArchiveDamagedError,
        "small",
    ),
    "an xl.meta has rotted": (
        lambda t: rebuilt(t.clear, rotted("files/large/", "xl.meta", IN_CHECKSUM_ONLY)),
        ArchiveDamagedError,
        "files/large",
    ),
    "an xl.meta on which a server ends": (
        lambda t: rebuilt(t.clear, made_up("files/large/xl.meta", EcBSize=0)),
        ArchiveDamagedError,
        "files/large.* may end",
    ),
    "one on which it ends, sealed anew": (
        lambda t: resealed(t.clear, made_up("files/large/xl.meta", PartASizes=[])),
        ArchiveDamagedError,
        "files/large.* may end",
    ),
    "one that tells of parts without end": (
        lambda t: resealed(
            t.clear,
            made_up(
                "files/large/xl.meta", MetaSys={"x-minio-internal-crc": b"\xc2\x01" + bytes(32) + b"\xff" * 8 + b"\x7f"}
            ),
        ),
        ArchiveDamagedError,
        "files/large.* may end",
    ),
    "one of a form without a checksum": (
        lambda t: resealed(t.clear, of_2021("files/large/xl.meta", EcBSize=0)),
        ArchiveDamagedError,
        "files/large.* may end",
    ),
    "configuration on which a server ends": (
        lambda t: rebuilt(t.clear, of_2021(".minio.sys/config/config.json/xl.meta", EcBSize=0)),
        ArchiveDamagedError,
        "config.json",
    ),
    "a version that only its header frees": (
        lambda t: resealed(t.clear, made_up("files/large/xl.meta", header={4: 3})),
        ArchiveDamagedError,
        "files/large.* may end",
    ),
    "an xl.meta is cut": (lambda t: rebuilt(t.clear, _with_cut_meta), ArchiveDamagedError, "files/small"),
    "an xl.meta is nonsense": (lambda t: rebuilt(t.clear, _with_other_magic), ArchiveDamagedError, "files/small"),
    "a symbolic link": (lambda t: with_member(t.clear, link("files/x", "/etc")), ArchiveRefusedError, "links"),
    "a hard link": (
        lambda t: with_member(t.clear, link("files/x", "files/small/xl.meta", tarfile.LNKTYPE)),
        ArchiveRefusedError,
        "links",
    ),
    "a device": (lambda t: with_member(t.clear, _device()), ArchiveRefusedError, "device"),
    "a path that leads out": (lambda t: with_member(t.clear, _file("../../x")), ArchiveRefusedError, "leaves"),
    "an absolute path": (lambda t: with_member(t.clear, _file("/etc/x")), ArchiveRefusedError, "absolute"),
    "a file twice": (lambda t: with_member(t.clear, _file("files/small/xl.meta")), ArchiveRefusedError, "twice"),
    "a name that is no bucket's": (
        lambda t: with_member(t.clear, _file("Not_A_Bucket/x")),
        ArchiveWrongKindError,
        "Not_A_Bucket",
    ),
    "a drive of files": (lambda t: _of_old_kind(), ArchiveIncompatibleError, "objects as plain files"),
    "a file that is no object's": (
        lambda t: with_member(t.clear, _file("files/folder/notes.txt"), b"notes"),
        ArchiveDamagedError,
        "files/folder/notes.txt",
    ),
    "other files": (lambda t: _with_foreign_files(), ArchiveWrongKindError, "README"),
    "another app's export": (lambda t: _of_recipe("volume"), ArchiveWrongKindError, "volume"),
    "a later format": (lambda t: _of_recipe("minio", version=9), ArchiveIncompatibleError, "version 9"),
    "no tar": (lambda t: b'{"not": "a tar"}' * 100, ArchiveWrongKindError, "JSON"),
    "empty": (lambda t: b"", ArchiveWrongKindError, "empty"),
    "an empty tar": (lambda t: bytes(10240), ArchiveWrongKindError, "no buckets"),
}


@pytest.mark.parametrize("name", BAD_FILES)
async def test_a_bad_file_is_refused_by_what_is_wrong_with_it(name: str, target: Target) -> None:
    make, kind, words = BAD_FILES[name]
    app, record = target.app, MemoryRecord()
    file = make(target)

    with pytest.raises(kind, match=words) as refusal:
        await app.stage(file, record)

    assert type(refusal.value) is kind
    await target.require_unchanged(app, record)


@pytest.mark.parametrize(
    ("prefix", "added", "words"),
    [
        ("data/", "data/x", "lies in a folder 'data'"),
        ("My Drive/", "My Drive/x", "lies in a folder 'My Drive'"),
        ("", "._files", "'._files' does not belong there"),
        ("", "files/._small", "'files/._small'"),
        ("outer/inner/", "outer/inner/x", "outer/inner/.minio.sys/format.json"),
    ],
)
async def test_how_a_drive_is_packed_by_hand_is_said_where_one_was_packed_otherwise(
    prefix: str, added: str, words: str, target: Target
) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.add(target.server.drive, arcname=prefix or ".")
        member = tarfile.TarInfo(added)
        archive.addfile(member)
    app, record = target.app, MemoryRecord()

    with pytest.raises((ArchiveWrongKindError, ArchiveDamagedError), match=re.escape(words)) as refusal:
        await app.stage(output.getvalue(), record)

    assert "tar -C /data -czf drive.tar.gz ." in refusal.value.next_step
    await target.require_unchanged(app, record)


async def test_one_of_several_drives_is_refused_by_what_it_is(target: Target, start_minio: StartMinio) -> None:
    several = start_minio(drives=4)
    await _fill(several)
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        archive.add(several.drive, ".")
    app, record = target.app, MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="one of several drives"):
        await app.stage(output.getvalue(), record)

    await target.require_unchanged(app, record)


async def test_what_a_server_makes_anew_by_itself_may_be_damaged(target: Target) -> None:
    app, record = target.app, MemoryRecord()
    archive = with_member(target.clear, _file(".minio.sys/buckets/.usage.json/xl.meta"), b"torn")

    await app.stage(archive, record)

    await target.require_unchanged(app, record)


async def test_what_the_server_cannot_read_is_refused_by_the_server(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "written_header_version", lambda drive: 99)
    app, record = target.app, MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="cannot read objects") as refusal:
        await app.stage(rebuilt(target.clear, of_newer_release), record)

    assert "?format=s3" in refusal.value.next_step
    await target.require_unchanged(app, record)


async def test_an_archive_that_needs_more_room_than_there_is_is_refused(target: Target) -> None:
    app = MinioApp(target.server, target.directory, limits=Limits(free_bytes=1 << 60))
    record = MemoryRecord()

    with pytest.raises(NoSpaceError, match="free"):
        await app.stage(target.archive, record)

    await target.require_unchanged(app, record)


async def test_an_archive_beyond_the_limits_is_refused(target: Target) -> None:
    app = MinioApp(target.server, target.directory, limits=Limits(free_bytes=1, entries=5))
    record = MemoryRecord()

    with pytest.raises(LimitExceededError, match="entries"):
        await app.stage(target.archive, record)

    await target.require_unchanged(app, record)


async def test_a_wrong_root_password_is_said(target: Target, tmp_path: Path) -> None:
    app = MinioApp(target.server, tmp_path)
    (tmp_path / "password").write_text("not the password")

    described = await app.recipe.describe()
    with pytest.raises(AppUnavailableError, match="root credentials"):
        await app.export()
    with pytest.raises(AppUnavailableError, match="root credentials"):
        await app.stage(target.archive)

    assert "root credentials" in described.can_import.obstacle
    assert await view(target.server) == target.before


async def test_a_server_that_is_down_is_said(target: Target, tmp_path: Path) -> None:
    app = MinioApp(target.server, tmp_path, {"url": "http://127.0.0.1:1"})

    described = await app.recipe.describe()
    with pytest.raises(AppUnavailableError, match=r"does not answer at http://127\.0\.0\.1:1: Connection refused\.$"):
        await app.export()

    assert "does not answer" in described.can_export.obstacle


async def test_a_drive_of_another_server_is_refused(target: Target, start_minio: StartMinio, tmp_path: Path) -> None:
    other = start_minio()
    app = MinioApp(target.server, tmp_path, {"directory": str(other.drive)})

    with pytest.raises(AppUnavailableError, match="not the server's"):
        await app.export()
    with pytest.raises(AppUnavailableError, match="not the server's"):
        await app.stage(target.archive)

    assert "not the server's" in (await app.recipe.describe()).warnings[0]


async def test_a_server_with_several_drives_is_refused(target: Target, start_minio: StartMinio, tmp_path: Path) -> None:
    several = start_minio(drives=4)
    app = MinioApp(several, tmp_path)

    with pytest.raises(AppUnavailableError, match="4 drives"):
        await app.export()
    with pytest.raises(AppUnavailableError, match="4 drives"):
        await app.stage(target.archive)

    assert "4 drives" in (await app.recipe.describe()).warnings[0]


@pytest.mark.parametrize(("options", "words"), [({"secret": "x"}, "secret=x"), ({"secrets": "x"}, "secrets=x")])
async def test_an_unknown_option_of_an_export_is_refused(options: dict[str, str], words: str, target: Target) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        await target.app.export(**options)


async def test_secrets_that_nothing_opens_are_refused_and_may_be_left_out(
    target: Target, start_minio: StartMinio, tmp_path: Path
) -> None:
    other = start_minio(password="quite-another-one")
    app, record = MinioApp(other, tmp_path), MemoryRecord()

    with pytest.raises(ArchiveIncompatibleError, match="sealed") as refusal:
        await app.stage(target.archive, record)
    await app.recipe.discard(record)
    kept = await app.import_file(target.archive, users="keep")

    assert "users=keep" in refusal.value.next_step
    assert await view(other) == target.before
    assert await users(other) == []
    await app.recipe.undo(kept, app.progress)
    assert await view(other) == {}


async def test_a_drive_that_was_copied_by_hand_is_imported_without_its_identity(
    target: Target, start_minio: StartMinio, tmp_path: Path
) -> None:
    source, other = start_minio(), start_minio()
    await _fill(source)
    wanted = await view(source)
    source.stop()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w:gz") as archive:
        archive.add(source.drive, arcname=".")
    app = MinioApp(other, tmp_path)

    await app.import_file(output.getvalue())

    assert await view(other) == wanted


def _lose_part(directory: Path) -> None:
    [part] = directory.rglob("part.1")
    part.unlink()


def _flip_bit_of_meta(directory: Path) -> None:
    meta = directory / "xl.meta"
    meta.write_bytes(rotted("", "xl.meta", IN_CHECKSUM_ONLY)("/xl.meta", meta.read_bytes()) or b"")


@variants("damage", [_lose_part, _flip_bit_of_meta])
async def test_what_was_damaged_on_the_source_is_said_and_does_not_keep_the_rest(
    damage: Callable[[Path], None], start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    await _fill(source)
    app = MinioApp(source, tmp_path)
    damage(source.drive / "files" / "large")

    exported = await app.export()
    record, preview = await app.stage(exported.file)
    await app.recipe.restore(record, app.progress)

    assert any("files/large" in warning for warning in exported.warnings)
    assert any("files/large" in warning for warning in preview.warnings)
    async with client_of(source) as client:
        assert (await client.call("GET", "files", "small")).body == b"small"


_FORMAT = ".minio.sys/config/iam/format.json"
_SETTINGS = ".minio.sys/buckets/files/.metadata.bin"


@pytest.mark.parametrize(
    ("path", "name", "other_way"),
    [
        (_FORMAT, _FORMAT, {"users": "keep"}),
        (".minio.sys/config/config.json", "config/config.json", {"users": "keep"}),
        (_SETTINGS, "the settings of bucket 'files'", {"bucket": "locked"}),
    ],
)
@variants("rot", [lambda path: rotted(path, "xl.meta", IN_CHECKSUM_ONLY), rotted_sum])
async def test_damaged_users_and_settings_are_refused_and_there_is_a_way_without_them(
    rot: Callable[[str], Change], path: str, name: str, other_way: dict[str, str], target: Target
) -> None:
    app, record = target.app, MemoryRecord()
    file = resealed(target.clear, rot(f"{path}/"))

    with pytest.raises(ArchiveDamagedError, match=name) as refusal:
        await app.stage(file, record)
    await app.recipe.discard(record)
    await app.stage(file, record, **other_way)

    assert all(f"`{option}=" in refusal.value.next_step for option in other_way)
    await target.require_unchanged(app, record)


async def test_users_and_settings_that_are_damaged_on_the_source_are_said_and_not_imported(
    start_minio: StartMinio, tmp_path: Path
) -> None:
    source = start_minio()
    await _fill(source)
    app, record = MinioApp(source, tmp_path), MemoryRecord()
    for path in (_FORMAT, _SETTINGS):
        _flip_bit_of_meta(source.drive / path)

    exported = await app.export()
    without_users = await app.export(secrets="left-out")
    with pytest.raises(ArchiveDamagedError, match=r"format\.json"):
        await app.stage(exported.file, record)
    await app.recipe.discard(record)

    [said] = [warning for warning in exported.warnings if "Damaged on the drive" in warning]
    assert _FORMAT in said
    assert "the settings of bucket 'files'" in said
    [said] = [warning for warning in without_users.warnings if "Damaged on the drive" in warning]
    assert _FORMAT not in said
    assert app.leftovers() == []


async def test_users_that_the_server_cannot_load_are_taken_back_with_all_else(
    start_minio: StartMinio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "USERS_SECONDS", 4.0)
    server = start_minio()
    await _fill(server)
    await fill_users(server)
    before, rights = await view(server), await access(server)
    app = MinioApp(server, tmp_path)
    # Whole, and no JSON.
    no_json = reworded(".minio.sys/config/iam/users/alice/identity.json/", b'"version"', b"!version!")
    record, _ = await app.stage(resealed((await app.export(secrets="clear")).file, no_json))

    with pytest.raises(ArchiveIncompatibleError, match="previous data is back in place") as refusal:
        await app.recipe.restore(record, app.progress)

    say_unchanged(refusal.value)
    assert "without what clients wrote in the moments between" in refusal.value.text
    assert "Nothing was changed" not in refusal.value.text
    assert "did not load its users" in refusal.value.text
    assert "users=keep" in refusal.value.next_step
    assert (await view(server), await access(server)) == (before, rights)
    await app.recipe.discard(record)
    assert app.leftovers() == []


async def test_one_bucket_is_compared_with_the_fingerprint_of_the_archive_too(target: Target) -> None:
    app, record = target.app, MemoryRecord()

    with pytest.raises(ArchiveDamagedError, match="bucket files"):
        await app.stage(resealed(target.clear, _without_small), record, bucket="files")
    await app.recipe.discard(record)
    await app.stage(resealed(target.clear, _without_small), record, bucket="locked")

    await target.require_unchanged(app, record)


async def test_settings_that_an_archive_by_hand_lacks_are_said(target: Target) -> None:
    app, record = target.app, MemoryRecord()

    _, preview = await app.stage(rebuilt(target.clear, _without_settings), record)

    assert any("no settings of locked:" in warning for warning in preview.warnings)
    await target.require_unchanged(app, record)


@pytest.mark.parametrize(("file", "at"), [("part.1", -1), ("xl.meta", IN_CHECKSUM_ONLY)])
async def test_what_had_rotted_on_the_source_is_said_before_it_is_imported(file: str, at: int, target: Target) -> None:
    app, record = target.app, MemoryRecord()

    _, preview = await app.stage(resealed(target.clear, rotted("files/large/", file, at)), record)

    assert any("files/large" in warning for warning in preview.warnings)
    await target.require_unchanged(app, record)


@dataclass
class Encrypted:
    """What a server with a KMS holds, and archives of it: with a fingerprint of its key, and without."""

    wanted: Any
    file: bytes
    unsaid: bytes


def _with_key(server: MinioServer, directory: Path, key: str) -> MinioApp:
    """An app whose agent knows the server's key."""
    (directory / "key").write_text(key + "\n")
    return MinioApp(server, directory, {"kms_key_file": str(directory / "key")})


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    with (
        short_directory("minio-encrypted") as folder,
        MinioServer(minio(), environment={"MINIO_KMS_SECRET_KEY": KMS_KEY}) as server,
    ):

        async def make() -> Encrypted:
            async with client_of(server) as client:
                await client.call("PUT", "sse")
                for key in ("small", "large"):
                    await put(client, "sse", key, key.encode() * 100_000, x_amz_server_side_encryption="AES256")
            file = (await _with_key(server, folder, KMS_KEY).export()).file
            return Encrypted(await view(server), file, (await MinioApp(server, folder).export()).file)

        yield asyncio.run(make())


@pytest.fixture(scope="module")
def other_key() -> Iterator[MinioServer]:
    """A server with data and another key, which a test has to leave as it was."""
    with MinioServer(minio(), environment={"MINIO_KMS_SECRET_KEY": OTHER_KMS_KEY}) as server:
        asyncio.run(_fill(server))
        yield server


async def test_encrypted_objects_go_to_a_server_with_the_same_key_and_to_no_other(
    encrypted: Encrypted, other_key: MinioServer, target: Target, start_minio: StartMinio, tmp_path: Path
) -> None:
    same = start_minio(environment={"MINIO_KMS_SECRET_KEY": KMS_KEY})
    before = await view(other_key)
    without, with_other = MemoryRecord(), MemoryRecord()
    other = _with_key(other_key, tmp_path, OTHER_KMS_KEY)

    await MinioApp(same, tmp_path / "same").import_file(encrypted.file)
    with pytest.raises(ArchiveIncompatibleError, match="no KMS"):
        await target.app.stage(encrypted.file, without)
    with pytest.raises(ArchiveIncompatibleError, match="another KMS key"):
        await other.stage(encrypted.file, with_other)

    assert await view(same) == encrypted.wanted
    await target.require_unchanged(target.app, without)
    await other.recipe.discard(with_other)
    assert await view(other_key) == before


async def test_another_kms_key_that_nobody_knew_of_is_noticed_after_the_exchange_which_is_taken_back(
    encrypted: Encrypted, other_key: MinioServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap, "USERS_SECONDS", 4.0)
    before = await view(other_key)
    app = MinioApp(other_key, tmp_path)
    record, _ = await app.stage(encrypted.unsaid)

    with pytest.raises(ServiceError, match="previous data is back"):
        await app.recipe.restore(record, app.progress)

    assert await view(other_key) == before
    await app.recipe.discard(record)
    assert app.leftovers() == []
