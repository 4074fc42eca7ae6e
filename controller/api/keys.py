"""What handlers find in the application and in a request, and the names of our own headers."""

from __future__ import annotations

from aiohttp import web

from common.errors import ServiceError
from controller.admission import Admission
from controller.callers import Caller
from controller.operations import Operations
from controller.settings import LimitSettings

OPERATIONS = web.AppKey("operations", Operations)
ADMISSION = web.AppKey("admission", Admission)
LIMITS = web.AppKey("limits", LimitSettings)

CALLER = web.RequestKey("caller", Caller)
"""Set on every route but those of health."""
TRANSFER_ID = web.RequestKey("transfer_id", str)
"""Set by handlers once it is known, for the answer if it is an error."""

ERROR = web.RequestKey("error", ServiceError)
"""What the answer is about, for the log."""

TRANSFER_HEADER = "Mathison-Transfer"
"""In a request: the id that the caller chose. In an answer: the id that it is about."""
