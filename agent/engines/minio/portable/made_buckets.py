"""Buckets that an import makes, told from those that clients make under the same names.

A name proves nothing: a client may have been there first, or have deleted ours and made its own. Ours is the one whose
making the server answered with 200, which MinIO does only where there was none, and which it still lists with the date
that it had then: that stays through restarts and settings, and no other bucket of that name has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.engines.minio.portable.listing import dates_of_buckets
from agent.engines.minio.server.client import Client, RefusedError
from common.errors import AgentUnavailableError, ServiceError, ToolFailedError

_LEFT_NEXT_STEP = "Look what is in it. If nobody needs it, delete it; then import the archive again."
_DELETE_SECONDS = 600.0


class MadeBuckets:
    """Those of one import, noted so that the next agent finds them.

    Attributes:
        is_deleting: some may be gone already.
    """

    def __init__(self, made: Sequence[str], making: str, note: Callable[[list[str], str], None]) -> None:
        """
        Args:
            made: names with their dates, as they were noted.
            making: the name of one that was about to be made, and may have been; empty: none.
            note: makes both durable.
        """
        self._made = {name: date for name, _, date in (text.partition(" ") for text in made)}
        self._making = making
        self._note = note
        self.is_deleting = False

    async def make(self, client: Client, name: str) -> None:
        """Make one more.

        Raises:
            ToolFailedError, AppUnavailableError: it was not made, or nobody can tell whether it was.
        """
        self._save(making=name)
        try:
            await client.call("PUT", name)
        except RefusedError:
            # Also where one is there: then it is somebody else's.
            self._save(making="")
            raise
        if not (date := (await dates_of_buckets(client)).get(name)):
            raise ToolFailedError(f"The bucket {name} was deleted or made anew as soon as it was made.")
        self._made[name] = date
        self._save(making="")

    async def require_ours(self, client: Client) -> None:
        """Raises ToolFailedError when somebody deleted one, or made another in its place."""
        dates = await dates_of_buckets(client)
        for name, date in self._made.items():
            if dates.get(name) != date:
                raise ToolFailedError(f"The bucket {name} was deleted or made anew while it was filled.")

    async def take_back(self, client: Client) -> list[str]:
        """Delete those that are provably ours, with all that is in them. Idempotent.

        Returns:
            Names of the others that are there.
        Raises:
            ToolFailedError, AppUnavailableError: the server did not delete one; see `is_deleting`.
        """
        left = []
        for name, date in self._made.items():
            found = (await dates_of_buckets(client)).get(name)
            if found == date:
                await self._delete(client, name)
            elif found is not None:
                left.append(name)
        if self._making and self._making in await dates_of_buckets(client):
            left.append(self._making)
        return left

    def forget(self) -> None:
        """Note that there are none any more."""
        self._made.clear()
        self._save(making="")

    async def _delete(self, client: Client, name: str) -> None:
        was_deleting, self.is_deleting = self.is_deleting, True
        try:
            await client.call("DELETE", name, headers={"x-minio-force-delete": "true"}, seconds=_DELETE_SECONDS)
        except RefusedError as failure:
            if failure.s3_code != "NoSuchBucket":
                self.is_deleting = was_deleting
                raise

    def _save(self, *, making: str) -> None:
        self._making = making
        self._note([f"{name} {date}" for name, date in self._made.items()], making)


def tell_left(failure: ServiceError, names: Sequence[str]) -> None:
    """Have a failure name the buckets that were not deleted; as it is when there are none."""
    if names:
        buckets = f"the bucket{'s' if len(names) > 1 else ''} {', '.join(names)}"
        failure.text = f"{failure.text} Left on the server: {buckets}, which a client may have made."
        failure.args = (failure.text,)
        failure.next_step = _LEFT_NEXT_STEP
        failure.says_what_changed = True


def broken_off(left: Sequence[str]) -> AgentUnavailableError:
    """What to tell of an import that ended in the middle, with nobody to tell it to."""
    failure = AgentUnavailableError("The import broke off in the middle; the buckets that it had made were deleted.")
    tell_left(failure, left)
    return failure
