"""RDB, the snapshot format of Redis and Valkey: read through to its end, so that no server has to meet a bad one.

A server that loads a file with a wrong checksum, a key that stands in it twice or a value of a module that it lacks
does not refuse it: it ends. So all of that is found out before.

- `layout`: the format's numbers; `source`: bytes with their checksum; `lzf`, `packed`: what values are packed in.
- `values`, `walk`: the reading itself, in one pass and little memory.
- `contents`, `sums`, `summing`: what the keys hold, for a fingerprint.
- `distinct`: whether anything stands twice, for any number of keys.
- `child`, `examination`: the reading in a jailed process, and that process seen from the agent.
"""

from __future__ import annotations
