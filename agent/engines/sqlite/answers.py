"""What the agent and the children of SQLite say to each other, in lines of JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from agent.engines.sqlite.questions import Answers, Questions
from agent.engines.table_parts import Parts
from agent.processes import Child
from common.errors import InternalError


async def answer_of(child: Child) -> dict[str, Any]:
    """Its next line; ToolFailedError, or InternalError, when it ends without one."""
    line = b""
    while not line.endswith(b"\n"):
        piece = await child.read()
        if not piece:
            await child.check()
            raise InternalError("A SQLite child ended without an answer.")
        line += piece
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise InternalError("A SQLite child gave an answer that is none.")
    return answer


def worded(questions: Questions) -> dict[str, Any]:
    """Questions as a part of a request."""
    return {
        "queries": dict(questions.queries),
        "tables": [*questions.tables, *(kind.table for kind in questions.kinds.values())],
        "with_content": questions.with_content,
        "without_columns": {table: list(columns) for table, columns in questions.without_columns.items()},
        "kinds": {name: [kind.table, list(kind.names)] for name, kind in questions.kinds.items()},
    }


def answers_of(answer: dict[str, Any]) -> Answers:
    """What was said to them."""
    parts = msgspec.convert(answer.get("parts", {}), dict[str, Parts])
    return Answers(rows=answer.get("rows", {}), content=answer.get("content", {}), parts=parts)
