"""A jailed child that looks at a tree of an upload, which is as hostile as the upload: one answer on stdout.

It is started by questions.py, whose imports a child has no use for.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from agent import rights
from agent.jail import enter, parse_argv
from common.errors import ServiceError

Request = TypeVar("Request")


def answer(request_type: type[Request], work: Callable[[int, Request], object]) -> None:
    """Do what is asked; a failure that is an answer is printed as one.

    Args:
        work: gets a descriptor of the directory, which is the current one too.
    """
    jail, parent_pid, [root, text] = parse_argv(sys.argv[1:])
    request = msgspec.json.decode(text, type=request_type)
    # What is imported late has to be there before the jail closes.
    msgspec.msgpack.decode(b"\x80")
    os.fchdir(int(root))
    rights.lock_into(int(root))
    enter(jail, parent_pid=parent_pid)
    rights.keep(rights.DAC_OVERRIDE)
    found: object
    try:
        found = msgspec.to_builtins(work(int(root), request))
    except ServiceError as error:
        found = {"reason": error.reason, "text": error.text, "next_step": error.next_step}
    # The standard library's JSON: names may hold bytes that are no text.
    with open(1, "wb", closefd=False) as output:
        output.write(json.dumps(found).encode())
