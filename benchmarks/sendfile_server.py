"""The fastest way to give a file to curl: `python -m benchmarks.sendfile_server FILE` prints its port and serves."""

from __future__ import annotations

import os
import socket
import sys


def main() -> None:
    """Serves the file to whoever connects, one after the other, until it is ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open(sys.argv[1], "rb") as file:
        print(listener.getsockname()[1], flush=True)
        size = os.fstat(file.fileno()).st_size
        while True:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
                    request += more
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
                sent = 0
                while sent < size:
                    sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)


if __name__ == "__main__":
    main()
