"""The session of a dump program, which the program opens itself.

MySQL's takes SQL to begin with, mariadb-dump does not yet. So what its session will have is looked at in another one,
and where that would falsify a dump, none is made: with sql_select_limit, it would be short and look whole.
"""

from __future__ import annotations

from agent.engines.mariadb.server.client import query
from agent.engines.mariadb.server.sessions import SETTINGS
from agent.engines.mariadb.server.settings import Login
from agent.processes import Command, run
from common.errors import AppUnavailableError

_NEEDED = {
    "sql_select_limit": ("18446744073709551615",),
    "character_set_client": ("utf8mb4", "utf8mb3", "utf8"),
    "system_versioning_asof": ("DEFAULT",),
}
"""Values with which mariadb-dump reads all there is; what it sets itself is not among them. It sends nothing but names,
which any UTF-8 has."""
_NEXT_STEPS = {
    "character_set_client": "Take SET NAMES out of the server's init_connect and skip-character-set-client-handshake "
    "out of its option file, or have them name utf8mb4; then try again.",
}
_ASKED = "SELECT @@sql_select_limit, @@character_set_client /*M!100304 , @@system_versioning_asof */;"


async def options_of(login: Login) -> list[str]:
    """Options for a dump program, by which its session reads all there is.

    Raises:
        AppUnavailableError: it has none, and the server's settings would falsify a dump.
    """
    if b"--init-command=" in await run(Command([str(login.dump_program), "--no-defaults", "--help"])):
        return [f"--init-command={SETTINGS}"]
    await require_harmless(login)
    return []


async def require_harmless(login: Login) -> None:
    """That a session which sets nothing reads all there is; raises as `options_of`."""
    # A limit of 0 leaves out even this row.
    [found] = await query(login, _ASKED, is_plain=True) or [["0"]]
    for (setting, needed), value in zip(_NEEDED.items(), found, strict=False):
        if value not in needed:
            raise AppUnavailableError(
                f"Sessions of {login.user} in {login.place} begin with {setting} = {value}, with which "
                f"{login.dump_program.name} would leave out or change what it reads.",
                next_step=_NEXT_STEPS.get(setting)
                or f"Set {setting} of the server to {needed[0]}, and take it out of init_connect; then try again.",
            )
