"""Enrolment: how agents get their certificates; documented in enrolment.proto."""

from __future__ import annotations

import asyncio

import structlog

from common.credentials import agent_uri
from common.errors import AppNotFoundError, NotAuthenticatedError, NotPermittedError
from controller.discovery.inventory import Inventory
from controller.identity.ca import CertificateAuthority
from controller.identity.join_tokens import JoinTokens
from controller.identity.signing_requests import public_key_digest, public_key_of
from controller.interceptors import Context, certificate_uris
from mathison.data.v1 import enrolment_pb2 as wire
from mathison.data.v1 import enrolment_pb2_grpc

SERVICE = "mathison.data.v1.Enrolment"
_log = structlog.get_logger(__name__)


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServicer):
    """Served on two ports: Enrol where no client certificate is asked for, Renew where one is; the interceptors see to
    that."""

    def __init__(self, authority: CertificateAuthority, join_tokens: JoinTokens, inventory: Inventory) -> None:
        self._authority = authority
        self._join_tokens = join_tokens
        self._inventory = inventory

    async def Enrol(self, request: wire.EnrolRequest, context: Context) -> wire.EnrolResponse:
        peer = context.peer()
        key = public_key_of(request.signing_request)
        app_id = await asyncio.to_thread(  # waits for a lock and the disk
            self._join_tokens.redeem,
            request.join_token,
            app_id=request.app_id,
            public_key_sha256=public_key_digest(key),
        )
        try:
            self._inventory.get(app_id)
        except AppNotFoundError as failure:
            raise NotAuthenticatedError(f"The join token is for {app_id}, which is no app any more.") from failure
        identity = self._authority.issue_agent(app_id, key)
        _log.info("An agent was enrolled.", action="enrol", app_id=app_id, peer=peer)
        answer = wire.EnrolResponse(
            certificate=identity.certificate, certificate_authorities=identity.authorities, app_id=app_id
        )
        answer.renew_at.FromDatetime(identity.renew_at())
        return answer

    async def Renew(self, request: wire.RenewRequest, context: Context) -> wire.RenewResponse:
        app_id = self._app_id_of_caller(context)
        identity = self._authority.issue_agent(app_id, public_key_of(request.signing_request))
        _log.info("An agent's certificate was renewed.", action="renew", app_id=app_id, peer=context.peer())
        answer = wire.RenewResponse(certificate=identity.certificate, certificate_authorities=identity.authorities)
        answer.renew_at.FromDatetime(identity.renew_at())
        return answer

    def _app_id_of_caller(self, context: Context) -> str:
        uris = certificate_uris(context)
        for app in self._inventory.all():
            if agent_uri(app.id) in uris:
                return app.id
        raise NotPermittedError("The certificate is not that of a known app's agent.")
