"""The JSON of the REST API: the messages of protos/, field by field under the same names.

Numbers are numbers, moments RFC 3339 in UTC, enums lower-case words without their prefix ("transferring"); what is not
set is null.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from aiohttp import web
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from controller.operations import Deployment
from mathison.data.v1.transfer_pb2 import TransferState

Json = dict[str, Any]
# Descriptors are Any here: those of protobuf's C library are no subclasses of the documented ones.


def message_to_json(message: Message) -> Json:
    """Every field, those that are not set included."""
    return {field.name: _field_to_json(message, field) for field in message.DESCRIPTOR.fields}


def transfer_to_json(state: TransferState, *, app_id: str) -> Json:
    return {"app_id": app_id, **message_to_json(state)}


def deployment_to_json(deployment: Deployment) -> Json:
    app, description = deployment.app, deployment.description
    return {
        "id": app.id,
        "workspace": app.workspace,
        "name": app.name,
        "recipe": deployment.recipe,
        "is_available": description is not None,
        "obstacle": deployment.obstacle,
        "description": message_to_json(description) if description is not None else None,
    }


def answer(content: Json) -> web.Response:
    """What somebody's data is like is nobody's to cache."""
    return web.json_response(content, headers={"Cache-Control": "no-store"})


def _field_to_json(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        kind = field.message_type.fields_by_name["value"]
        return {name: _value_to_json(item, kind) for name, item in value.items()}
    if field.is_repeated:
        return [_value_to_json(item, field) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value_to_json(value, field)


def _value_to_json(value: Any, field: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToDatetime(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Message):
        return message_to_json(value)
    if field.enum_type is not None:
        return _enum_to_json(value, field.enum_type)
    return value


def _enum_to_json(number: int, kind: Any) -> str | None:
    """The name without what all names of the enum begin with; null for zero and for what a newer agent says."""
    value = kind.values_by_number.get(number)
    if value is None or number == 0:
        return None
    prefix: str = kind.values_by_number[0].name.removesuffix("UNSPECIFIED")
    name: str = value.name
    return name.removeprefix(prefix).lower()
