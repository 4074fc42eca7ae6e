"""A key tried on secrets, and told apart from others, by an agent that has no library for that in its memory."""

from __future__ import annotations

import subprocess
import sys

from agent.engines.n8n.encryption import encrypt, wrap
from agent.engines.n8n.fits import Fit
from agent.engines.n8n.fitting import fit_of_rows
from agent.engines.n8n.key_notes import fingerprint_of

WRAPPED = [("k-1", "signing.jwt", wrap("secret", "key"), "aes-256-gcm")]
CREDENTIALS = [("1", "Mail", encrypt("{}", "key")), ("2", "Old", encrypt("{}", "an older key"))]


async def test_a_key_is_tried_on_rows_that_were_read() -> None:
    right = await fit_of_rows(WRAPPED, CREDENTIALS, "key")
    wrong = await fit_of_rows(WRAPPED, CREDENTIALS, "another")

    assert right == Fit(readable=2, unreadable=["credential Old (2)"])
    assert right.is_right
    assert wrong == Fit(
        unreadable=["deployment key signing.jwt", "credential Mail (1)", "credential Old (2)"], keys_differ=True
    )
    assert not wrong.is_right
    assert (await fit_of_rows([], [], "any")).is_right


def test_the_recipe_brings_no_library_that_opens_secrets_into_the_agent() -> None:
    program = "import sys, agent.recipes.n8n; print({'cryptography', 'pyrage', 'psycopg'} & sys.modules.keys())"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "set()"


def test_a_fingerprint_tells_keys_apart_and_does_not_hold_them() -> None:
    assert fingerprint_of("key") == fingerprint_of("key") != fingerprint_of("key2")
    assert len(fingerprint_of("key")) == 16
