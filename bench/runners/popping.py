"""The loop that a user of litequeue writes: `python -m bench.runners.popping FILE`."""

from __future__ import annotations

import json
import sys

from litequeue import LiteQueue

from bench.runners import work


def main(path: str) -> None:
    """Pops until nothing waits."""
    queue = LiteQueue(path)
    while (message := queue.pop()) is not None:
        work.do_nothing(json.loads(message.data))
        queue.done(message.message_id)


if __name__ == "__main__":
    main(sys.argv[1])
