"""A bucket's settings are told in words that are equal where the settings are."""

from __future__ import annotations

import msgspec
import pytest

from agent.engines.minio.drive import bucket_settings
from agent.engines.minio.drive.bucket_settings import UnreadableSettingsError, bucket_of, holds_targets, strictly, told
from agent.engines.minio.drive.xlmeta import ObjectMeta, Version

_VERSIONED = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


def _meta(**settings: object) -> ObjectMeta:
    content = bytes(32) + b"\1\0\1\0" + msgspec.msgpack.encode({"Name": "b", "LockEnabled": False, **settings})
    version = Version("null", False, 0, len(content), "", "", (), "", False, {}, len(content), True)
    return ObjectMeta(3, [version], {"null": content})


def test_equal_settings_are_told_in_equal_words_whenever_they_were_made() -> None:
    one = _meta(VersioningConfigXML=_VERSIONED, VersioningConfigUpdatedAt=1)

    assert told(one) == told(_meta(VersioningConfigXML=_VERSIONED, VersioningConfigUpdatedAt=2))
    assert told(one) != told(_meta())


@pytest.mark.parametrize(
    "nothing",
    [
        b'<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></NotificationConfiguration>',
        b"<NotificationConfiguration/>",
    ],
)
def test_a_setting_that_says_nothing_is_none(nothing: bytes) -> None:
    assert told(_meta(NotificationConfigXML=nothing)) == told(_meta())


def test_keys_of_another_server_are_not_in_the_words() -> None:
    told_of_keys = {
        told(_meta(BucketTargetsConfigJSON=keys)) for keys in (b'[{"secretKey":"a"}]', b'[{"secretKey":"b"}]')
    }

    assert told_of_keys == {bucket_settings.WITH_KEYS}


@pytest.mark.parametrize(
    "nothing", [b"", b"{}", b"null", b'{"targets":[]}', b' {"targets": null} ', b'{"targets":[]}'.ljust(300)]
)
def test_an_empty_list_of_targets_holds_none(nothing: bytes) -> None:
    assert not holds_targets(nothing)


@pytest.mark.parametrize("content", [b'{"targets":[{}]}', b'{"targets":[],"Targets":[{}]}', b'{"targets":', b"\x81\0"])
def test_all_else_may_hold_some(content: bytes) -> None:
    assert holds_targets(content)


def test_what_cannot_be_read_is_told_as_that() -> None:
    broken = _meta(PolicyConfigJSON=7)

    assert told(broken) == "unreadable"
    assert told(ObjectMeta(3, [])) == bucket_settings.NONE


def test_only_the_file_of_the_settings_is_taken_for_them() -> None:
    assert bucket_of(".minio.sys/buckets/shop/.metadata.bin/xl.meta") == "shop"
    assert bucket_of(".minio.sys/buckets/shop/.usage.json/xl.meta") == ""
    assert bucket_of("shop/buckets/shop/.metadata.bin/xl.meta") == ""


pack = msgspec.msgpack.encode
FORMAT = b"\1\0\1\0"
_TAGS = pack("TaggingConfigXML") + pack(b"<Tagging/>")
_NAMED = pack("Name") + pack("shop")


@pytest.mark.parametrize(
    "content",
    [
        b"\x82" + _NAMED + _TAGS,
        b"\xde\x00\x02" + _TAGS + _NAMED,
        b"\xdf\x00\x00\x00\x02" + _NAMED + _TAGS,
        b"\x81" + _TAGS,
        b"\x83" + _NAMED + pack("Created") + b"\xc7\x0c\x05" + bytes(12) + _TAGS,
        b"\x83" + _NAMED + pack("OfANewerRelease") + pack({"a": 1}) + _TAGS,
    ],
    ids=["small", "in another order", "large", "without a name", "with a time", "of a newer release"],
)
def test_a_buckets_own_settings_are_read(content: bytes) -> None:
    assert strictly(FORMAT + content, bucket="shop").tagging_config_xml == b"<Tagging/>"


@pytest.mark.parametrize(
    "content",
    [
        FORMAT + b"\x81" + pack("Name") + pack("other"),
        FORMAT + b"\x82" + _NAMED + pack("Name") + pack("other"),
        FORMAT + b"\x82" + pack("Name") + pack("other") + _NAMED,
        FORMAT + b"\x82" + _NAMED + pack(b"Name") + pack("other"),
        FORMAT + b"\x82" + pack(b"Name") + pack("other") + _NAMED,
        FORMAT + b"\x81" + pack("Name") + pack(b"shop"),
        FORMAT + b"\x81" + pack("Name") + pack(None),
        FORMAT + b"\x81" + pack("Name") + pack(""),
        FORMAT + b"\x81" + _NAMED + b"\x81" + pack("Name") + pack("other"),
        FORMAT + b"\x82" + _NAMED,
        FORMAT + b"\x92" + _NAMED,
        FORMAT + b"\x82" + _NAMED + pack("TaggingConfigXML") + pack(None),
        FORMAT + b"\x82" + _NAMED + pack("TaggingConfigXML") + pack("<Tagging/>"),
        b"\2\0\1\0\x81" + _NAMED,
        b"\1\0\2\0\x81" + _NAMED,
        FORMAT,
        b"",
    ],
)
def test_what_is_another_buckets_or_may_be_read_otherwise_is_not(content: bytes) -> None:
    with pytest.raises(UnreadableSettingsError):
        strictly(content, bucket="shop")
