"""How to reach the running demo, as shell variables: `eval "$(.venv/bin/python -m tools.demo.variables)"`.

The file is `.demo/demo.json`, or the one that MATHISON_DEMO names.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

DEFAULT = ".demo/demo.json"
RECIPE = "postgresql"


def main() -> int:
    """Exit status 1: there is no such file, so no demo runs."""
    path = Path(os.environ.get("MATHISON_DEMO", DEFAULT))
    try:
        demo = json.loads(path.read_text())
    except FileNotFoundError:
        print(f"{path} is not there: start the demo with `make demo`, and wait for its tables", file=sys.stderr)
        return 1
    app = next(app for app in demo["apps"] if app["recipe"] == RECIPE)
    variables = {
        "REST": demo["rest"],
        "CONTROLLER": demo["grpc"],
        "AGENT": app["agent"],
        "APP": app["id"],
        "CA": demo["ca"],
        "CERT": demo["client_cert"],
        "KEY": demo["client_key"],
        "MATHISON_TOKEN": demo["token"],
    }
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
