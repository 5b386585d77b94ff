"""``tmm`` and ``python -m tmm_core``: the command line, ended quietly by Ctrl-C from its first moment."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command of this process and return its exit status."""
    try:
        # In here: what a command needs takes tenths of a second to load.
        from tmm_core.operations import cli

        return cli.main()
    except KeyboardInterrupt:
        print("tmm: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
