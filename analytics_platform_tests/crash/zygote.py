# ruff: noqa: T201  (standard output is the protocol)
"""A process that has imported everything and forks once a command: a kill costs a fork, not a Python start.

Reads one JSON object a line: `{"path": "fetch" | "dagster", "environment": {…}, "first_day", "last_day", "refresh"}`;
forks; the child runs that path to its end, or to the failpoint its environment names; the parent answers with one line,
the child's wait status (`exit:0`, `signal:9`). No thread is started before the fork: engines, sockets and ledgers are
opened by the child.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from datetime import date
from typing import Any

from pydantic import SecretStr

from analytics_platform.core.fetch import Fetcher, SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import AccountMeter, QuotaPolicy, Window, account_key
from analytics_platform.core.resources import open_ledger
from analytics_platform.settings import load_settings
from analytics_platform.vendors import all_tables, streams_of
from analytics_platform.vendors.inspectlet.client import InspectletClient

SITE = "shop"


def fetch(first_day: date, last_day: date) -> None:
    """Inspectlet's sessions of one site through client, ledger, landing and lake, without Dagster."""
    settings = load_settings()
    ids = settings.site(SITE).ids("inspectlet") or {}
    (stream,) = [stream for stream in streams_of("inspectlet") if stream.name == "sessions"]
    fetcher = Fetcher(
        landing=Landing(settings.home.landing),
        lake=Lake(settings.home.lake),
        run_id=f"run-{os.getpid()}",
        specs_by_name=all_tables(),
    )
    policy = QuotaPolicy(account=account_key("inspectlet", "crash"), windows={"any": (Window(10_000, 60.0),)})
    with open_ledger(settings) as ledger:
        outcome = fetcher.run(
            stream,
            SiteContext(key=SITE, timezone="Europe/Berlin", ids=ids),
            [date.fromordinal(day) for day in range(first_day.toordinal(), last_day.toordinal() + 1)],
            connect=lambda: InspectletClient.connect(
                username=SecretStr(os.environ["INSPECTLET_USERNAME"]),
                api_token=SecretStr(os.environ["INSPECTLET_API_TOKEN"]),
                base_url=os.environ["INSPECTLET_BASE_URL"],
                meter=AccountMeter(ledger, policy),
            ),
        )
    if outcome.error is not None:
        raise outcome.error


def dagster(first_day: date, last_day: date) -> None:
    """The same sessions as the UI's materialise button runs them: asset, checks, blocked list."""
    import dagster as dg

    from analytics_platform.core.automation import range_tags
    from analytics_platform.core.ingest import vendor_assets
    from analytics_platform.core.resources import PlatformResource
    from analytics_platform.vendors.inspectlet.resource import InspectletResource

    settings = load_settings()
    streams = [stream for stream in streams_of("inspectlet") if stream.name == "sessions"]
    job = dg.Definitions(
        assets=vendor_assets(streams, settings=settings, specs_by_name=all_tables()),
        resources={"platform": PlatformResource(), "inspectlet": InspectletResource.from_environment()},
    ).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(
            instance=instance,
            tags=range_tags(SITE, first_day, last_day),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def main() -> None:
    """Answer commands until the end of standard input."""
    if "dagster" in sys.argv:
        import dagster as _dagster  # noqa: F401
        import great_expectations as _expectations  # noqa: F401
        import pandas as _pandas  # noqa: F401
    print("ready", flush=True)
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        child = os.fork()
        if child == 0:
            os.environ.update(command["environment"])
            code = 1
            try:
                path = {"fetch": fetch, "dagster": dagster}[command["path"]]
                path(date.fromisoformat(command["first_day"]), date.fromisoformat(command["last_day"]))
                code = 0
            except BaseException:  # a child must not go on reading commands
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answer = f"signal:{os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit:{os.WEXITSTATUS(status)}"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
