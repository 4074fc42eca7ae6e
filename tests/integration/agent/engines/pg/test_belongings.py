"""Owners and rights of what an import brings, where somebody made them other than they come about by themselves."""

from __future__ import annotations

import pytest

from tests.fixtures.variants import variants
from tests.integration.agent.engines.pg.conftest import MakeApp

SCHEMA_PUBLIC = """
    SELECT nspowner::regrole::text, ARRAY(SELECT format('%s %s', nullif(grantee, 0)::regrole, privilege_type)
                                            FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner))) ORDER BY 1)
      FROM pg_namespace WHERE nspname = 'public'
"""


@variants("major", [14, 17], kept=[17])
@pytest.mark.parametrize("has_admin", [True, False], ids=["superuser", "createdb"])
async def test_a_schema_public_that_the_app_made_again_has_its_owner_and_no_grants(
    make_app: MakeApp, major: int, has_admin: bool
) -> None:
    app = make_app(major, has_admin=has_admin, rights="CREATEDB")
    app.run("DROP SCHEMA public; CREATE SCHEMA public; CREATE TABLE public.t (a int)", as_app=True)
    if has_admin:
        app.run(
            f"ALTER DATABASE {app.database} OWNER TO postgres; GRANT CREATE ON DATABASE {app.database} TO {app.role}"
        )
    before = app.run(SCHEMA_PUBLIC)
    archive = await app.export()

    record, preview = await app.stage(archive)
    await app.recipe.restore(record, app.progress)

    assert before == [(app.role, [f"{app.role} CREATE", f"{app.role} USAGE"])]
    if major < 15 and not has_admin:
        assert [one for one in preview.warnings if "Schema public has not the owner and grants" in one]
    else:
        assert (app.run(SCHEMA_PUBLIC), preview.warnings) == (before, ())
        app.run("CREATE TABLE public.more (a int)", as_app=True)
