"""Where symbolic links lead, told by their text alone: what is at their end now says nothing about later.

See docs/decisions/0201-symbolic-links.md.
"""

from __future__ import annotations

from collections.abc import Sequence

_PROGRAM_DIRECTORIES = ("bin", "lib", "lib32", "lib64", "opt", "sbin", "usr")
_HARMLESS_DEVICES = ("/dev/null", "/dev/stdout", "/dev/stderr")


def leads_out(path: Sequence[str], target: str, *, inside: str, depth: int = 0) -> bool:
    """Whether a symbolic link may leave the directory, however the other links in it lead on.

    False only for `..` at the target's beginning and not too many: there they lead through real directories. After a
    name, `..` may be taken from wherever another link leads.

    Args:
        path: where the link is once the app sees it, below the directory.
        inside: absolute path under which the app sees the directory.
        depth: of the folder that the link may not leave: 0 for the directory itself, 1 for one at its top.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if target.startswith("/"):
        folder = [*(part for part in inside.split("/") if part), *path[:depth]]
        return parts[: len(folder)] != folder or ".." in parts
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return ups >= len(path) - depth or ".." in parts[ups:]


def leads_to_programs(target: str) -> bool:
    """Where an image has what anyone may read: a link to an interpreter is the most usual link out of a volume."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    is_program = target.startswith("/") and ".." not in parts and parts[:1] != [] and parts[0] in _PROGRAM_DIRECTORIES
    return is_program or target in _HARMLESS_DEVICES


def gives_away(path: str, target: str, *, inside: str, depth: int = 0) -> bool:
    """Whether an app that follows the link may give away what was not meant to be; arguments as of `leads_out`."""
    return leads_out(path.split("/"), target, inside=inside, depth=depth) and not leads_to_programs(target)
