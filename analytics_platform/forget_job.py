"""The right to erasure as Dagster jobs.

Belongs here: the job `forget`, which carries out a request file, and the step that must hold the pool `warehouse`. Does
not belong here: what is done (`erasure`), the command (`forget_cli`).

A run's configuration stands in clear in Dagster's storage and in the UI, so it holds the *name* of a request file in
the home's `erasure/` folder, never a key. The file is 0600 and is removed at the end.
"""

# No `from __future__ import annotations` here: Dagster reads the types of an op's parameters at run time.
import dagster as dg

from analytics_platform.core.errors import PlatformError
from analytics_platform.core.redaction import redact
from analytics_platform.settings import load_settings

__all__ = ["compact_and_publish", "forget", "forget_definitions"]

_WAREHOUSE_POOL = "warehouse"


class ForgetRequest(dg.Config):
    """Which request, and the words that confirm it."""

    request: str
    confirm: str = ""


class Compaction(dg.Config):
    """Whether a new version is published from the compacted file."""

    publish_too: bool = True


@dg.op(tags={"kind": "orchestration"})
def forget_person(context: dg.OpExecutionContext, config: ForgetRequest) -> None:
    """Carry out one erasure request, or go on with it; fails while something of the person is left."""
    from analytics_platform.erasure import Erasure, confirmation_words

    if config.confirm != confirmation_words():
        raise dg.Failure(f"Not confirmed: set confirm to {confirmation_words()!r}.", allow_retries=False)
    try:
        receipt = Erasure(load_settings(), context.instance, say=context.log.info).run(config.request)
    except PlatformError as error:
        raise dg.Failure(redact(str(error)), allow_retries=False) from None
    context.add_output_metadata(
        {"state": receipt.state, "receipt": f"receipts/{receipt.request}.json", "remaining": len(receipt.remaining)}
    )
    if receipt.state == "failed":
        raise dg.Failure(f"Something of the person is left: see receipts/{receipt.request}.json.", allow_retries=False)


@dg.job(description="Forgets one person: takes the name of a request file in the home's erasure/ folder.")
def forget() -> None:
    """One op: see `forget_person`."""
    forget_person()


@dg.op(pool=_WAREHOUSE_POOL)
def compact(config: Compaction) -> None:
    """Copy the warehouse into a new file, and publish from it: the one writer while it lasts."""
    from analytics_platform.erasure.steps import compact_warehouse
    from analytics_platform.transform.publish import publish

    settings = load_settings()
    compact_warehouse(settings)
    if config.publish_too:
        publish(settings)


@dg.job(description="Copies the warehouse into a new file, so that deleted bytes are gone, and publishes it.")
def compact_warehouse_job() -> None:
    """One op: see `compact`."""
    compact()


def compact_and_publish(instance: dg.DagsterInstance, *, run_id: str, publish_too: bool) -> None:
    """Run the compaction in this process, when the pool `warehouse` is free."""
    compact_warehouse_job.execute_in_process(
        instance=instance,
        run_id=run_id,
        run_config={
            "ops": {"compact": {"config": {"publish_too": publish_too}}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )


def forget_definitions() -> dg.Definitions:
    """Both jobs."""
    return dg.Definitions(jobs=[forget, compact_warehouse_job])
