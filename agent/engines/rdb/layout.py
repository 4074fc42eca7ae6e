"""The numbers of the format (rdb.h of Redis 7.4 and Valkey 9), and which version has which."""

from __future__ import annotations

import enum


class Opcode(enum.IntEnum):
    """What stands where a value's type could stand."""

    SLOT_INFO = 244
    FUNCTION = 245
    FUNCTION_PRE_GA = 246
    MODULE_AUX = 247
    IDLE = 248
    FREQ = 249
    AUX = 250
    RESIZE_DB = 251
    EXPIRE_MS = 252
    EXPIRE_SECONDS = 253
    SELECT_DB = 254
    EOF = 255


class Type(enum.IntEnum):
    """How a value is laid out; 22 is another thing in each flavour."""

    STRING = 0
    LIST = 1
    SET = 2
    ZSET = 3
    HASH = 4
    ZSET_2 = 5
    MODULE_PRE_GA = 6
    MODULE = 7
    HASH_ZIPMAP = 9
    LIST_ZIPLIST = 10
    SET_INTSET = 11
    ZSET_ZIPLIST = 12
    HASH_ZIPLIST = 13
    LIST_QUICKLIST = 14
    STREAM = 15
    HASH_LISTPACK = 16
    ZSET_LISTPACK = 17
    LIST_QUICKLIST_2 = 18
    STREAM_2 = 19
    SET_LISTPACK = 20
    STREAM_3 = 21
    HASH_METADATA_PRE_GA = 22
    HASH_LISTPACK_EX_PRE_GA = 23
    HASH_METADATA = 24
    HASH_LISTPACK_EX = 25
    VALKEY_HASH_2 = 122
    """22 in a file of Valkey."""


KINDS = {
    "string": (Type.STRING,),
    "list": (Type.LIST, Type.LIST_ZIPLIST, Type.LIST_QUICKLIST, Type.LIST_QUICKLIST_2),
    "set": (Type.SET, Type.SET_INTSET, Type.SET_LISTPACK),
    "zset": (Type.ZSET, Type.ZSET_2, Type.ZSET_ZIPLIST, Type.ZSET_LISTPACK),
    "hash": (
        Type.HASH,
        Type.HASH_ZIPMAP,
        Type.HASH_ZIPLIST,
        Type.HASH_LISTPACK,
        Type.HASH_METADATA_PRE_GA,
        Type.HASH_LISTPACK_EX_PRE_GA,
        Type.HASH_METADATA,
        Type.HASH_LISTPACK_EX,
        Type.VALKEY_HASH_2,
    ),
    "stream": (Type.STREAM, Type.STREAM_2, Type.STREAM_3),
    "module": (Type.MODULE,),
}
"""What people call the types."""

OLDEST_VERSION = {"redis": 1, "valkey": 80}
NEWEST_VERSION = {"redis": 12, "valkey": 80}
"""Newest version that this program reads: Redis 7.4 to 8.2, Valkey 9."""


def first_version_of(kind: Type) -> int:
    """The RDB version that brought a type; a server of an older one does not know it."""
    if kind is Type.VALKEY_HASH_2:
        return 80
    for version, first in ((12, 22), (11, 20), (10, 16), (9, 15), (7, 14)):
        if kind >= first:
            return version
    return 1


MODULE_NAME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def module_type_name(module_id: int) -> str:
    """The nine characters in a module's 64-bit id; the ten bits below them are an encoding version."""
    return "".join(MODULE_NAME_CHARACTERS[module_id >> (10 + 6 * (8 - place)) & 63] for place in range(9))
