"""What an import into n8n would change, and what is to be known before it, in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.archives.members import printable
from agent.archives.surveying import Survey
from agent.engines.n8n.preparations import Items, Prepared
from agent.engines.n8n.wishes import ImportWishes
from agent.item_changes import ItemChanges
from common.wording import some_of

_MOST_NAMES = 5


def items(now: Items, after: Items) -> dict[str, ItemChanges]:
    """What becomes of workflows, credentials, users, executions and data tables; without kinds that are not known of
    both, or of which neither has any.
    """
    kinds = [kind for kind in after if kind in now and (now[kind] or after[kind])]
    return {kind: ItemChanges.between(now[kind], after[kind]) for kind in kinds}


def bridging(migrations: Sequence[str], known: Sequence[str]) -> str:
    """What this n8n does with data of an older one, as a sentence; empty when it is of the same version.

    Args:
        migrations: that the data has been through.
        known: those of this n8n.
    """
    if not (missing := [name for name in known if name not in set(migrations)]):
        return ""
    first, last = missing[0], missing[-1]
    which = first if first == last else f"from {first} to {last}"
    return f"Written by an older n8n: this one makes {_number(len(missing), 'migration')} when it starts ({which})."


def changes(now: Mapping[str, int], prepared: Prepared) -> tuple[str, ...]:
    """What an import would change, in sentences."""
    after = prepared.counts
    sentences = [
        f"{_told(after)} take the place of {_told(now)}.",
    ]
    if prepared.secrets:
        sentences.append(f"Encrypted again with the key of this n8n: {_number(prepared.secrets, 'secret')}.")
    off = prepared.deactivated
    if said := _those_of((off.workflows, "active workflow"), (off.agents, "published agent")):
        sentences.append(f"Switched off: {said}.")
    if off.executions:
        sentences.append(f"Cancelled: {_number(off.executions, 'execution')} in n8n's queue.")
    return tuple(sentences)


def warnings(prepared: Prepared, wishes: ImportWishes) -> list[str]:
    """What to know before an import, in sentences."""
    found = []
    if prepared.emptied:
        found.append(
            f"The secrets are left out: {_number(prepared.emptied, 'credential')} without content, under the same "
            "names, and no second factors."
        )
    elif prepared.unreadable:
        named = some_of(prepared.unreadable, _MOST_NAMES)
        found.append(
            f"Not readable where the data comes from either: {_number(len(prepared.unreadable), 'secret')} ({named})."
        )
    active = prepared.active
    kinds = (
        (active.workflows, "workflow"),
        (active.agents, "published agent"),
        (active.executions, "execution in its queue", "executions in its queue"),
    )
    if said := _those_of(*kinds):
        found.append(
            f"What is active fires here as soon as n8n starts: {said}. If the archive's n8n still runs, both do: "
            "switch that one off, or import with the option deactivate_workflows=true."
        )
    if prepared.waiting:
        found.append(f"{_number(prepared.waiting, 'waiting execution')} will go on here when the time has come.")
    found += prepared.warnings
    if prepared.counts.get("users"):
        found.append("Users, their passwords and their sessions are those of the n8n that the data comes from.")
    return found


def about_files(now: Survey, after: Survey, *, has_folder: bool) -> list[str]:
    """What becomes of files that nobody may expect.

    Args:
        after: of the archive, without the database.
        has_folder: n8n keeps files, by the agent's settings.
    """
    if not has_folder and after.files:
        return [
            f"Left out: {_files(after)} of the archive, since the agent's settings name no folder of n8n. Where n8n "
            "keeps binary data or community nodes in files, set `directory` and import again."
        ]
    if has_folder and now.files and not after.entries:
        return [f"The archive holds nothing beside the database: {_files(now)} go with the previous data."]
    return []


def _files(found: Survey) -> str:
    names = some_of([printable(name) for name in sorted(found.tops)], _MOST_NAMES)
    return f"{_number(found.files, 'file')} ({names})"


def _told(counts: Mapping[str, int]) -> str:
    workflows, credentials, executions = (
        _number(counts.get(f"{what}s", 0), what) for what in ("workflow", "credential", "execution")
    )
    return f"{workflows} ({counts.get('active_workflows', 0)} active), {credentials}, {executions}"


def _those_of(*kinds: tuple[int, str] | tuple[int, str, str]) -> str:
    """Of kinds of things those that there are."""
    return ", ".join(_number(*kind) for kind in kinds if kind[0])


def _number(count: int, what: str, many: str = "") -> str:
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"
