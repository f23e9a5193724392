"""The entry point of the `softrec` command, and of `python -m clients`: it says how to get what the base install lacks.

Only the standard library is imported before that is known.
"""

from __future__ import annotations

import sys

_OURS = ("index", "training", "serving", "clients")


def main() -> None:
    """Run the command line; where a part of it is not installed, print one line and exit with 2."""
    try:
        from clients.cli import main as run

        run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OURS:
            raise
        sys.stderr.write(f"softrec: {error.name} is not installed; pip install 'softrec[cpu]', or 'softrec[gpu]'\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
