"""PostgreSQL: a dump out, a database built beside the live one, and both exchanged by their names.

- `connection`, `clients`: how the server and its client programs are reached.
- `dump`: a consistent copy out.
- `load` (with `sqltext`, `custom_archive`, `uploads`): an upload into an empty database.
- `green`, `carry_over`, `swap`: that database made, made like the old one, and swapped in.
- `same_database`: the way for a role that may not create databases.
- `fingerprint`: whether two databases hold the same.
"""

from __future__ import annotations
