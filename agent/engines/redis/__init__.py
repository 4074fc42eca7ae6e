"""Redis and Valkey: a snapshot out by replication, another one in by playing the server's master.

- `settings`, `connection`: how a server is reached; `facts`: what it is and holds now.
- `replica`: our own replication client, which reads a snapshot and what is written after it.
- `commands`: what of that is kept for an undo.
- `master`: our own replication server, from which a snapshot is loaded.
- `lending`: settings of the server that are changed for a moment, and put back whatever dies.
- `pausing`, `exchange`: the swap; `releasing`: the server made its own master again.
- `durable`: the server's own files made current; `copied`: which of them may be there.
- `compatibility`: which release can load which file; `fitting`: whether a server has what data needs.
"""

from __future__ import annotations
