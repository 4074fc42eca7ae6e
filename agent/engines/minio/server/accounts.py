"""Users and keys: whose they are after a move to a server with another root."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agent.archives.members import printable
from agent.engines.minio.drive.comparing import ACCOUNTS
from agent.engines.minio.drive.layout import CONFIG
from agent.engines.minio.server.client import Client, RefusedError
from common.errors import ArchiveIncompatibleError, ToolFailedError
from common.headers import ArchiveHeader
from common.wording import some_of

_ACCOUNTS = "iam-assets/svcaccts.json"
_MAX_BYTES = 64 << 20
_NAMED = 5
_NOTHING = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]},
        {"Effect": "Deny", "Action": ["admin:*"]},
    ],
}
"""A policy that forbids all that one can; names of accounts are told all the same."""


def root_of(header: ArchiveHeader | None, named: str, staged: Path) -> str:
    """The name of root on the server that an archive is of; empty: nobody says.

    Args:
        named: by the caller, for archives that do not say it.
        staged: a tree laid out as a drive.
    Raises:
        ArchiveIncompatibleError: it cannot be that; nothing was changed.
    """
    told = header.details.get("root_user", "") if header else ""
    if not named or named == told:
        return told
    if told or _is_there(staged, "users", named):
        why = f"it says itself that root was {printable(told)}" if told else "it has a user of that name"
        raise ArchiveIncompatibleError(
            f"{printable(named)} was not root on the server that the archive is of: {why}. Nothing was changed.",
            next_step="Correct the option root, or leave it out: it is for drives that were packed by hand.",
        )
    return named


def require_one_root(staged: Path, *, root: str, previous_root: str, parents: Mapping[str, Sequence[str]]) -> None:
    """Refuse a user or a service account with the name of this server's root, and service accounts of that name's.

    MinIO makes none, and takes whatever belongs to that name for root's: a service account of such a user, which may
    have been allowed to read one bucket, may do everything.

    Args:
        staged: a tree laid out as a drive.
        previous_root: the name of root where the archive is from, where they are no more than here; empty: not known.
        parents: names of service accounts by whose they are, as far as the tree tells it.
    Raises:
        ArchiveIncompatibleError: by name; nothing was changed.
    """
    if root == previous_root:
        return
    for kind in ("users", "service_accounts"):
        if _is_there(staged, kind, root):
            raise _impostor(f"a {kind[:-1].replace('_', ' ')} {printable(root)}", "Nothing was changed.")
    if previous_root and (names := parents.get(root)):
        raise _of_nobody(names, root, "Nothing was changed.")


def _of_nobody(names: Sequence[str], root: str, after: str) -> ArchiveIncompatibleError:
    return _impostor(f"service accounts ({', '.join(names)}) of one {printable(root)}", after)


def _impostor(who: str, after: str) -> ArchiveIncompatibleError:
    return ArchiveIncompatibleError(
        f"The archive has {who}, and so is root called on this server: MinIO would give its service accounts all of "
        f"root's rights here, and not take its own key. {after}".rstrip(),
        next_step="Import with `users=keep`, which leaves this server's users, policies and configuration as they are; "
        "or give root another name here (MINIO_ROOT_USER, and `user` in the agent's settings); or delete it on the "
        "source and export again.",
    )


def _is_there(staged: Path, kind: str, name: str) -> bool:
    return Path(f"{staged}/{CONFIG}/iam/{ACCOUNTS[kind][0]}/{name}").is_dir()


class TakenOver(msgspec.Struct):
    """A service account that becomes this root's, as it was.

    Attributes:
        policy: what it may do; None: all that root may.
    """

    name: str
    is_disabled: bool
    policy: dict[str, Any] | None


async def roots_own(client: Client, *, previous_root: str) -> list[TakenOver]:
    """The service accounts of a root of another name, which have no rights.

    Raises:
        ArchiveIncompatibleError: there are some that have this root's rights, and had none where they are from.
    """
    accounts = await _listed(client)
    root = client.account.user
    if names := [printable(name) for name, account in sorted(accounts.items()) if account.get("parent") == root]:
        raise _of_nobody(names[:_NAMED], root, "")
    return [
        TakenOver(name, _is_disabled(account), account.get("sessionPolicy"))
        for name, account in sorted(accounts.items())
        if account.get("parent") == previous_root
    ]


async def take_over(client: Client, taken: Sequence[TakenOver], *, previous_root: str) -> None:
    """Give them to this server's root; what was done of it before is not done again.

    MinIO enables whatever it imports. So the disabled ones come with a policy that forbids everything, and get their
    own back in the call that disables them.

    Raises:
        RefusedError, ToolFailedError: it did not work.
    """
    wanted = {account.name: account for account in taken}
    left = {
        name: _given(account, client.account.user, is_disabled=wanted[name].is_disabled)
        for name, account in (await _listed(client)).items()
        if name in wanted and account.get("parent") == previous_root
    }
    if left:
        await _import(client, left)
    for name, account in (await _listed(client)).items():
        if name in wanted and wanted[name].is_disabled and not _is_disabled(account):
            # Rarely needed, and 6 MiB.
            from agent.engines.minio.server import madmin

            # Without a policy beside it, one that is there goes.
            policy = wanted[name].policy
            order = {"newStatus": "off"} | ({"newPolicy": policy} if policy else {})
            body = madmin.encrypt(client.account.password, json.dumps(order).encode())
            await client.admin("POST", "update-service-account", query={"accessKey": name}, body=body)
    found = await _listed(client)
    amiss = [name for name, account in wanted.items() if not _is_taken(found.get(name), client.account.user, account)]
    if amiss:
        names = some_of([printable(name) for name in amiss], _NAMED)
        raise ToolFailedError(f"MinIO did not make the service accounts {names} this root's as they were.")


async def keep_root_access(client: Client) -> None:
    """Have root's access turned on in the configuration on the drive, which the server reads for that.

    Raises:
        ArchiveIncompatibleError: it cannot read it.
    """
    # Rarely needed, and 6 MiB.
    from agent.engines.minio.server import madmin

    try:
        order = madmin.encrypt(client.account.password, b"api root_access=on")
        await client.admin("PUT", "set-config-kv", body=order)
    except RefusedError as failure:
        raise ArchiveIncompatibleError(
            f"The server cannot read the archive's configuration: {failure.text}",
            next_step="Where the archive is encrypted, the server needs the same KMS key. With `users=keep` an import "
            "leaves users, policies and configuration as they are.",
        ) from failure


def _given(account: dict[str, Any], root: str, *, is_disabled: bool) -> dict[str, Any]:
    claims = account.get("claims")
    claims = {**claims, "parent": root} if isinstance(claims, dict) else claims
    if not is_disabled:
        return {**account, "parent": root, "claims": claims}
    if isinstance(claims, dict):
        claims = {name: value for name, value in claims.items() if not name.startswith("sessionPolicy")}
    return {**account, "parent": root, "claims": claims, "sessionPolicy": _NOTHING}


def _is_disabled(account: Mapping[str, Any]) -> bool:
    return account.get("status") in ("off", "disabled")


def _is_taken(account: Mapping[str, Any] | None, root: str, wanted: TakenOver) -> bool:
    if account is None:
        return False
    # Not what the policy says: MinIO tells its actions in any order.
    found = (account.get("parent"), _is_disabled(account), bool(account.get("sessionPolicy")))
    return found == (root, wanted.is_disabled, bool(wanted.policy))


async def _import(client: Client, accounts: Mapping[str, object]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_ACCOUNTS, json.dumps(accounts))
    try:
        await client.admin("PUT", "import-iam-v2", body=file.getvalue())
    except RefusedError as failure:
        if failure.status != 404:
            raise
        # Releases of before 2024.
        await client.admin("PUT", "import-iam", body=file.getvalue())


async def _listed(client: Client) -> dict[str, dict[str, Any]]:
    return _service_accounts((await client.admin("GET", "export-iam")).body)


def _service_accounts(exported: bytes) -> dict[str, dict[str, Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(exported)) as archive:
            if _ACCOUNTS not in archive.namelist():
                return {}
            if archive.getinfo(_ACCOUNTS).file_size > _MAX_BYTES:
                raise ToolFailedError("MinIO's list of service accounts is too long.")
            found = json.loads(archive.read(_ACCOUNTS))
            return {name: account for name, account in found.items() if isinstance(account, dict)}
    except (zipfile.BadZipFile, ValueError, AttributeError) as failure:
        raise ToolFailedError("MinIO's export of users cannot be read.") from failure
