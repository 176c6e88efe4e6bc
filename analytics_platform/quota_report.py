"""How each vendor's quota stands and where it went: the numbers of the quota assets, the `quota` verb and `status`.

Belongs here: collecting them from ledger and landing, and the plot of the last 48 hours. Does not belong here: counting
(`core.quota`), Dagster (`quota_assets`), printing (`cli`). Sends nothing.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from analytics_platform.core.landing import Landing
from analytics_platform.core.quota import Ledger, WindowUsage
from analytics_platform.core.quota_policy import QuotaPolicy
from analytics_platform.settings import Settings
from analytics_platform.vendors import streams_of, vendor_resource

__all__ = ["PLOT_HOURS", "AccountReport", "QuotaReport", "Waste", "plot_png", "report_quota"]

PLOT_HOURS: Final = 48
_DAY: Final = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Waste:
    """Requests of the last 24 hours that taught nothing: pages without a record, and pages asked for more than once
    within one batch (a window begun anew).
    """

    empty_pages: int = 0
    refetched_pages: int = 0


@dataclass(frozen=True, kw_only=True)
class AccountReport:
    """One account: the sites that spend from it, and its longest window now."""

    account: str
    sites: tuple[str, ...]
    window: WindowUsage


@dataclass(frozen=True, kw_only=True)
class QuotaReport:
    """One vendor.

    Args:
        accounts: every account with credentials, tightest first.
        requests_by_stream: of the last 24 hours.
        requests_by_hour: (UTC hour, stream) to requests, of the last 48 hours.
        refused: answers 429 of the last 24 hours.
        deferred: batches of work that wait for this quota.
    """

    vendor: str
    reported_at: datetime
    accounts: tuple[AccountReport, ...]
    requests_by_stream: dict[str, int]
    requests_by_hour: dict[tuple[datetime, str], int]
    refused: int
    waste: Waste
    deferred: int


def report_quota(settings: Settings, vendor: str, ledger: Ledger, now: datetime) -> QuotaReport:
    """How the vendor's quota stands. Sites without credentials are left out."""
    resource = vendor_resource(vendor)
    sites_by_account: dict[str, list[str]] = {}
    policies: dict[str, QuotaPolicy] = {}
    for site in settings.sites_with(vendor):
        ids = site.ids(vendor) or {}
        if not resource.missing_variables(ids):
            policy = resource.quota_policy(ids)
            policies[policy.account] = policy
            sites_by_account.setdefault(policy.account, []).append(site.key)
    accounts = [
        AccountReport(account=name, sites=tuple(sites_by_account[name]), window=_longest(ledger, policy))
        for name, policy in policies.items()
    ]
    spent = Counter[str]()
    for row in ledger.spent(vendor=vendor, since=now - _DAY):
        spent[row.stream or "other"] += row.requests
    return QuotaReport(
        vendor=vendor,
        reported_at=now,
        accounts=tuple(sorted(accounts, key=lambda a: a.window.remaining / a.window.limit)),
        requests_by_stream=dict(sorted(spent.items())),
        requests_by_hour=ledger.requests_by_hour(list(policies), now - timedelta(hours=PLOT_HOURS)),
        refused=ledger.refused(list(policies), now - _DAY),
        waste=_waste(settings, vendor, now - _DAY),
        deferred=sum(deferral.vendor == vendor for deferral in ledger.deferrals()),
    )


def _longest(ledger: Ledger, policy: QuotaPolicy) -> WindowUsage:
    return max(ledger.usage_of(policy, policy.method_class("GET")), key=lambda usage: usage.window_seconds)


def _waste(settings: Settings, vendor: str, since: datetime) -> Waste:
    landing = Landing(settings.home.landing)
    empty = refetched = 0
    for stream in streams_of(vendor):
        for site in settings.sites_with(vendor):
            for batch in landing.batches(vendor, stream.name, site.key):
                if batch.is_complete and batch.landed_at is not None and batch.landed_at < since:
                    continue
                recent = [page for page in batch.index() if page.received_at >= since]
                empty += sum(page.records == 0 for page in recent)
                refetched += _repeated((page.call, page.sequence) for page in recent)
    return Waste(empty_pages=empty, refetched_pages=refetched)


def _repeated(pages: Iterable[tuple[str, int]]) -> int:
    return sum(count - 1 for count in Counter(pages).values())


def plot_png(report: QuotaReport) -> bytes:
    """Requests by hour and stream over the last 48 hours, with the limit an hour where the window is one."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    first = (report.reported_at - timedelta(hours=PLOT_HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    hours = [first + timedelta(hours=n) for n in range(PLOT_HOURS)]
    streams = sorted({stream for _, stream in report.requests_by_hour})
    figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
    try:
        base = [0] * PLOT_HOURS
        for stream in streams:
            heights = [report.requests_by_hour.get((hour, stream), 0) for hour in hours]
            axes.bar(range(PLOT_HOURS), heights, bottom=base, label=stream or "other", width=0.9)
            base = [low + height for low, height in zip(base, heights, strict=True)]
        _limit_line(axes, report.accounts)
        ticks = range(0, PLOT_HOURS, 6)
        axes.set_xticks(list(ticks), [f"{hours[n]:%d %b %H:%M}" for n in ticks], fontsize=8)
        axes.set_ylabel("requests an hour")
        axes.set_title(f"{report.vendor}: requests of the last {PLOT_HOURS} hours (UTC)", fontsize=10)
        if streams:
            axes.legend(fontsize=7, ncols=min(4, len(streams)))
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=80, metadata={"Software": None})
        return target.getvalue()
    finally:
        plt.close(figure)


def _limit_line(axes: object, accounts: Sequence[AccountReport]) -> None:
    hourly = [a.window.limit for a in accounts if a.window.window_seconds == 3600]
    if hourly:
        axes.axhline(sum(hourly), linestyle="--", linewidth=1, color="tab:red", label="limit")  # type: ignore[attr-defined]
