"""Users and keys: whose they are after a move to a server with another root, and which buckets hold foreign ones."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from agent.archives.members import printable
from agent.engines.minio.bucket_settings import holds_targets
from agent.engines.minio.client import Client, RefusedError
from agent.engines.minio.comparing import ACCOUNTS
from agent.engines.minio.layout import CONFIG, TARGETS_FILE
from common.errors import ArchiveIncompatibleError, ToolFailedError
from common.headers import ArchiveHeader

_ACCOUNTS = "iam-assets/svcaccts.json"
_MAX_BYTES = 64 << 20


async def buckets_with_remote_targets(client: Client, *, only: str = "") -> list[str]:
    """Those whose settings hold the keys of another server, for replication.

    From the settings themselves: the list of targets that MinIO gives lacks those that it has not reached since it
    started.

    Args:
        only: the one bucket to look at; empty: all.
    """
    exported = await client.admin("GET", "export-bucket-metadata", query={"bucket": only} if only else {})
    try:
        with zipfile.ZipFile(io.BytesIO(exported.body)) as archive:
            files = [name for name in archive.namelist() if name.endswith(f"/{TARGETS_FILE}")]
            return sorted(name.partition("/")[0] for name in files if holds_targets(archive.read(name)))
    except zipfile.BadZipFile as failure:
        raise ToolFailedError("MinIO's export of the buckets' settings cannot be read.") from failure


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


def require_one_root(staged: Path, *, root: str, previous_root: str) -> None:
    """Refuse a user or a service account with the name of this server's root.

    MinIO makes none, and takes whatever belongs to that name for root's: a service account of such a user, which may
    have been allowed to read one bucket, may do everything.

    Args:
        staged: a tree laid out as a drive.
        previous_root: the name of root where the archive is from, where they are no more than here; empty: not known.
    Raises:
        ArchiveIncompatibleError: by name; nothing was changed.
    """
    for kind in ("users", "service_accounts"):
        if root != previous_root and _is_there(staged, kind, root):
            raise ArchiveIncompatibleError(
                f"The archive has a {kind[:-1].replace('_', ' ')} {printable(root)}, and so is root called on this "
                "server: MinIO would give its service accounts all of root's rights here, and not take its own key. "
                "Nothing was changed.",
                next_step="Import with `users=keep`, which leaves this server's users, policies and configuration as "
                "they are; or give root another name here (MINIO_ROOT_USER, and `user` in the agent's settings); or "
                "delete it on the source and export again.",
            )


def _is_there(staged: Path, kind: str, name: str) -> bool:
    return Path(f"{staged}/{CONFIG}/iam/{ACCOUNTS[kind][0]}/{name}").is_dir()


async def adopt(client: Client, *, previous_root: str) -> list[str]:
    """Give the service accounts of a root of another name to this server's; their names.

    Without this they have no rights. Importing them enables those that were disabled, so these are disabled again.

    Raises:
        RefusedError, ToolFailedError: it did not work.
    """
    root = client.account.user
    exported = await client.admin("GET", "export-iam")
    accounts = _service_accounts(exported.body)
    orphans = {name: account for name, account in accounts.items() if account.get("parent") == previous_root}
    if not orphans:
        return []
    for account in orphans.values():
        account["parent"] = root
        if isinstance(account.get("claims"), dict):
            account["claims"]["parent"] = root
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_ACCOUNTS, json.dumps(orphans))
    try:
        await client.admin("PUT", "import-iam-v2", body=file.getvalue())
    except RefusedError as failure:
        if failure.status != 404:
            raise
        # Releases of before 2024.
        await client.admin("PUT", "import-iam", body=file.getvalue())
    for name, account in orphans.items():
        if account.get("status") in ("off", "disabled"):
            # Rarely needed, and 6 MiB.
            from agent.engines.minio import madmin

            body = madmin.encrypt(client.account.password, json.dumps({"newStatus": "off"}).encode())
            await client.admin("POST", "update-service-account", query={"accessKey": name}, body=body)
    return sorted(orphans)


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
