"""mathison-agent: serves one app's data to the controller.

mathison-agent --config FILE             serve until SIGTERM
mathison-agent --config FILE --check     say whether the settings can be used, and end
"""

from __future__ import annotations

import agent.footprint  # noqa: F401  # before all others: it decides what they import

# isort: split
import argparse
import asyncio
import os
import sys
from pathlib import Path

from agent.serving import StartError, make_recipe, serve
from agent.settings import AgentSettings, read_settings
from common.errors import ServiceError
from common.logs import set_up_logs
from common.settings_files import SettingsError
from common.sole_use import InUseError
from common.version import VERSION
from common.wording import sentence_of

CONFIG_VARIABLE = "MATHISON_AGENT_CONFIG"
WRONG_SETTINGS = 2
CANNOT_SERVE = 1


def main() -> None:
    """Entry point; the exit status is 0, 1 (cannot serve) or 2 (wrong settings or arguments)."""
    arguments = _parse()
    config = arguments.config.resolve()
    try:
        settings = read_settings(config)
        # Relative paths in a recipe's own settings, which only the recipe knows, are relative to the file, too.
        os.chdir(config.parent)
        if arguments.check:
            _check(settings)
            return
    except SettingsError as failure:
        _fail(str(failure), WRONG_SETTINGS)
    except ServiceError as failure:
        _fail(f"{config}: {failure.text}", WRONG_SETTINGS)
    set_up_logs(program="agent")
    try:
        asyncio.run(serve(settings, config))
    except ServiceError as failure:
        _fail(f"{arguments.config}: {failure.text}", WRONG_SETTINGS)
    except (StartError, InUseError, OSError) as failure:
        _fail(sentence_of(failure), CANNOT_SERVE)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mathison-agent", description="Takes one app's data out and puts it back in, for the controller."
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get(CONFIG_VARIABLE),
        metavar="FILE",
        help=f"settings, a TOML file; or ${CONFIG_VARIABLE}",
    )
    parser.add_argument("--check", action="store_true", help="say whether the settings can be used, and end")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    arguments = parser.parse_args()
    if arguments.config is None:
        parser.error(f"--config FILE or ${CONFIG_VARIABLE} is needed")
    arguments.config = Path(arguments.config)
    return arguments


def _check(settings: AgentSettings) -> None:
    recipe = make_recipe(settings)
    print(f"The settings of {settings.app_id} with recipe {recipe.name} can be used.")


def _fail(text: str, status: int) -> None:
    print(f"mathison-agent: {text}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
