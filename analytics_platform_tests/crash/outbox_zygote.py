# ruff: noqa: T201  (standard output is the protocol)
"""A process that has imported all that a delivery needs and forks once a command: a kill costs a fork.

Reads one JSON object a line, the environment of a delivery; the child delivers what is pending in that home, to its end
or to the failpoint the environment names; the parent answers with the child's wait status (`exit:0`, `signal:9`).
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import dagster

from analytics_platform.core import quota, resources
from analytics_platform.core.outbox import Outbox
from analytics_platform.outbox_cli import deliver_pending
from analytics_platform.vendors import all_operations, vendor_names
from analytics_platform.vendors.kameleoon.resource import KameleoonResource
from analytics_platform.vendors.pirsch.resource import PirschResource

PRELOADED = (dagster, quota, resources, Outbox, KameleoonResource, PirschResource)
"""What a delivery imports when it needs it: imported here, it costs the forks nothing."""


def main() -> None:
    """Answer commands until the end of standard input."""
    assert all_operations()
    assert vendor_names()
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.environ.update(json.loads(line))
            try:
                deliver_pending()
            except BaseException:  # a child must not go on reading commands
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(f"signal:{-code}" if code < 0 else f"exit:{code}", flush=True)


if __name__ == "__main__":
    main()
