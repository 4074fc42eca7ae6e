"""How much of a stream lies in memory on its way through: gRPC's options for channels and servers.

Measured with archives of 1 GiB one after the other, each way: with gRPC's own growing window the peak is 47 MiB above
idle, with a fixed one 28, and with two heaps (`footprint`) 20, at the same speed (grpcio 1.85.1, glibc 2.36).
"""

from __future__ import annotations

GRPC_OPTIONS = (
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 << 20),
    # Who sends to us may put a whole chunk into one HTTP/2 frame, not 64 of 16 KiB: 2.4 s of CPU a GB in sender and
    # receiver together, not 2.85, with TLS.
    ("grpc.http2.max_frame_size", 1 << 20),
)
