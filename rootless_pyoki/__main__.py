"""The slow way in: `python -m rootless_pyoki`; also where a hot bundle that lacks something goes.

The bundle starts this file by its path, so that the package is found even where site-packages
would not be (a `--user` install under another uid or HOME, say).
"""

from __future__ import annotations

import sys

if not __package__:
    sys.path.append(__file__.rsplit("/", 2)[0])

try:
    from rootless_pyoki.cli.entry import main
except OSError as error:  # too many open files, an unreadable installation
    sys.exit(f"error: load pyoki: {error}")

if __name__ == "__main__":
    main(sys.argv[1:])
