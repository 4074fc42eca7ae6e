"""Modules that libraries import and an agent uses rarely or never: their code runs when something is asked of them.

Each would cost memory for as long as the agent runs, 3 MiB in all. The one fact to know: `from x import y` asks at
once, so here stand only modules that are imported whole.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = frozenset(
    {
        # For connections with TLS by Python, which only agents of apps with TLS make; gRPC brings its own.
        "asyncio.sslproto",
        "ssl",
        # For protobuf without its C library.
        "google.protobuf.descriptor_database",
        "google.protobuf.internal.python_edition_defaults",
        "google.protobuf.internal.python_message",
        "google.protobuf.text_encoding",
        "msgspec.inspect",
        "msgspec.toml",
        "msgspec.yaml",
        "structlog.threadlocal",
        "structlog.twisted",
        "asyncio.staggered",
        "csv",
        "idna",
        "linecache",
        "mimetypes",
        "pkgutil",
        "textwrap",
        "tokenize",
        "zipfile",
    }
)
_OF_IMPORTS = ("__path__", "__file__", "__cached__", "__wrapped__")
"""What is looked for in any module, and missing in some."""
_reading = threading.RLock()


class _LaterModule(ModuleType):
    """One whose code has not run. `importlib.util.LazyLoader` would run it at the second import of the same module."""

    def __getattr__(self, name: str) -> Any:
        if name in _OF_IMPORTS:
            raise AttributeError(name)
        with _reading:
            found: Any = self.__spec__
            if isinstance(found.loader, _LaterLoader):
                later, found.loader = found.loader, found.loader.real
                try:
                    found.loader.exec_module(self)
                except BaseException:
                    found.loader = later
                    raise
                self.__loader__ = found.loader
                self.__class__ = ModuleType  # type: ignore[assignment]  # as importlib.util does it
            elif type(self) is _LaterModule:  # its own code asks, which runs just now
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        return getattr(self, name)


class _LaterLoader:
    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self.real.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _LaterModule


class _LaterFinder:
    """Finds those modules as all others are found. No base classes: `importlib.abc` imports what belongs up there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MODULES:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _LaterLoader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


sys.meta_path.insert(0, _LaterFinder())
