"""What an upload loaded with the app's own rights could have changed outside of its database, and whether it did.

Statements are filtered (`restricted`), but a function of the upload may run while its rows are loaded, and could rename
a database that nobody uses, change the role's settings or its password. It cannot drop a database: that is not allowed
in a function. So what is outside is looked at before and after.
"""

from __future__ import annotations

from agent.engines.pg.connection import Connection, Login, connect
from common.errors import ArchiveRefusedError, ServiceError

Outside = frozenset[str]
"""Facts, one line each."""


async def look_outside(connection: Connection) -> Outside:
    """What the connected role could change: its databases but for those of imports, itself, and their settings."""
    cursor = await connection.execute("""
        SELECT format('database %s: name %I, owner %s, privileges %s, limit %s, allows connections %s', oid, datname,
                      datdba::regrole, datacl, datconnlimit, datallowconn)
          FROM pg_database WHERE pg_has_role(datdba, 'USAGE') AND datname !~ '^mathison_new_'
        UNION ALL
        SELECT format('role %I: %s', rolname, to_jsonb(r)) FROM pg_roles r WHERE rolname = current_user
        UNION ALL
        SELECT format('member %s of %s', member::regrole, roleid::regrole) FROM pg_auth_members
         WHERE current_user::regrole IN (member, roleid)
        UNION ALL
        SELECT format('settings of database %s and role %s: %s', setdatabase, setrole::regrole, setconfig)
          FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
         WHERE (s.setrole = current_user::regrole OR pg_has_role(d.datdba, 'USAGE'))
           AND coalesce(d.datname, '') !~ '^mathison_new_'
    """)
    return frozenset(line for (line,) in await cursor.fetchall())


async def require_same_outside(before: Outside, login: Login) -> None:
    """Compare.

    Args:
        login: of the role that loaded, with the password that it had before.
    Raises:
        ArchiveRefusedError: something was changed; names it, since only a person can tell who did it.
    """
    try:
        async with connect(login) as connection:
            after = await look_outside(connection)
    except ServiceError as failure:
        raise _changed(
            f"After the file was loaded, the role {login.user} is not let in any more: {failure.text}",
            next_step="Set the role's password again, and do not import this file.",
        ) from failure
    if changed := sorted(before ^ after):
        raise _changed(
            "While the file was loaded, something outside of its database changed; the import was dropped. "
            f"Before or after: {'; '.join(changed[:6])}.",
            next_step="If nobody else changed it, set it back and do not import this file. With an admin_user for the "
            "agent no file can do that.",
        )


def _changed(text: str, *, next_step: str) -> ArchiveRefusedError:
    error = ArchiveRefusedError(text, next_step=next_step)
    error.says_what_changed = True
    return error
