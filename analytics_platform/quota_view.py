"""How quota stands and what waits for it, as one value: what the `quota` verb shows, once or again and again.

Belongs here: joining ledger, plan and report. Does not belong here: counting (`core.quota`), forecasting
(`core.planning`), waste and pictures (`quota_report`), printing (`quota_cli`). Sends nothing, but `refresh_quota`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.fetch import SiteContext
from analytics_platform.core.forecast import Certainty, Forecast
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import LandedHistory, PlanLine, Planner, Spender
from analytics_platform.core.quota import Ledger
from analytics_platform.core.quota_policy import Deferral, ReportedUsage, WindowUsage
from analytics_platform.core.resources import VendorResource, open_ledger
from analytics_platform.core.streams import Stream
from analytics_platform.core.usage import ask_usage
from analytics_platform.quota_report import Waste, report_quota
from analytics_platform.settings import Settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource

__all__ = ["DeferredWork", "QuotaView", "VendorQuota", "read_quota_view", "refresh_quota"]

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class VendorQuota:
    """Where a vendor's requests of the last 24 hours went.

    Args:
        requests_by_table: by the lake tables they were for ("sessions", or "event_names + event_days" where one
            extraction fills several); "other" was for none.
        refused: answers 429.
    """

    vendor: str
    requests_by_table: Mapping[str, int]
    refused: int
    waste: Waste


@dataclass(frozen=True, kw_only=True)
class DeferredWork:
    """One deferral and what is left of it; both days inclusive.

    Args:
        days_to_fetch: days that still cost requests.
        expected_records: rows of all its days by landed history; None where there is none.
        requests: what is left will cost; None where the site or its credentials are gone.
        finishes_at: when the last request of it and of all newer work of its account may leave.
    """

    vendor: str
    stream: str
    site: str
    first_day: date
    last_day: date
    resume_at: datetime
    reason: str
    landed_records: int
    days_to_fetch: int
    expected_records: float | None = None
    requests: Forecast | None = None
    finishes_at: datetime | None = None

    @property
    def days(self) -> int:
        return (self.last_day - self.first_day).days + 1


@dataclass(frozen=True, kw_only=True)
class QuotaView:
    """One look.

    Args:
        windows: every window of every account this home has used.
        sites: by account, the sites that spend from it (those with credentials).
        vendors: where requests went; empty in a quick look.
        deferrals: newest day first.
    """

    at: datetime
    windows: tuple[WindowUsage, ...]
    sites: Mapping[str, tuple[str, ...]]
    vendors: tuple[VendorQuota, ...]
    deferrals: tuple[DeferredWork, ...]

    @property
    def is_waiting(self) -> bool:
        return bool(self.deferrals)


@dataclass(frozen=True)
class _Spender:
    """A site at a vendor that has what it needs to spend."""

    resource: VendorResource
    context: SiteContext
    spender: Spender


def read_quota_view(settings: Settings, *, quick: bool = False, clock: Clock = SYSTEM_CLOCK) -> QuotaView:
    """How quota stands now. `quick` leaves out where requests went, which reads every open or recent batch."""
    now = clock.now()
    spenders = {(item.resource.vendor, item.context.key): item for item in _spenders(settings)}
    sites: dict[str, tuple[str, ...]] = {}
    for item in spenders.values():
        account = item.spender.policy.account
        sites[account] = (*sites.get(account, ()), item.context.key)
    with open_ledger(settings, clock) as ledger:
        windows = [window for account in ledger.accounts() for window in ledger.usage(account)]
        vendors = () if quick else tuple(_vendor_quota(settings, name, ledger, now) for name in _used(settings))
        desk = _Desk(settings, ledger, now, spenders)
        deferrals = tuple(desk.work(ledger.deferrals()))
    return QuotaView(at=now, windows=tuple(windows), sites=sites, vendors=vendors, deferrals=deferrals)


def refresh_quota(settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> Mapping[str, ReportedUsage | None]:
    """Ask every vendor that says so what it counted, and adopt it; by account, None where it did not answer.

    An account whose window our own requests fill is not asked: the question might be one too many.
    """
    answers: dict[str, ReportedUsage | None] = {}
    with open_ledger(settings, clock) as ledger:
        for item in _spenders(settings):
            policy = item.spender.policy
            says_nothing = type(item.resource).reported_usage is VendorResource.reported_usage
            if says_nothing or policy.account in answers or not _may_ask(item, ledger):
                continue
            answers[policy.account] = ask_usage(item.resource, item.context.ids, ledger)
    return answers


def _may_ask(item: _Spender, ledger: Ledger) -> bool:
    policy = item.spender.policy
    method_class = policy.method_class("GET")
    has_room = all(usage.remaining > 0 for usage in ledger.usage_of(policy, method_class))
    return has_room or ledger.is_in_doubt(policy, method_class)


def _used(settings: Settings) -> list[str]:
    return [name for name in vendor_names() if settings.sites_with(name)]


def _spenders(settings: Settings) -> Iterator[_Spender]:
    for vendor in _used(settings):
        resource = vendor_resource(vendor)
        for site in settings.sites_with(vendor):
            ids = site.ids(vendor) or {}
            if not resource.missing_variables(ids):
                spender = Spender(
                    policy=resource.quota_policy(ids), connection_requests=resource.connection_requests(ids)
                )
                yield _Spender(resource, SiteContext(key=site.key, timezone=site.timezone, ids=ids), spender)


def _vendor_quota(settings: Settings, vendor: str, ledger: Ledger, now: datetime) -> VendorQuota:
    report = report_quota(settings, vendor, ledger, now)
    names = {stream.name: " + ".join(spec.name for spec in stream.tables) for stream in streams_of(vendor)}
    requests: dict[str, int] = {}
    for stream, number in report.requests_by_stream.items():
        name = names.get(stream, stream)
        requests[name] = requests.get(name, 0) + number
    return VendorQuota(vendor=vendor, requests_by_table=requests, refused=report.refused, waste=report.waste)


class _Desk:
    """Deferred work against plan and history."""

    def __init__(
        self, settings: Settings, ledger: Ledger, now: datetime, spenders: Mapping[tuple[str, str], _Spender]
    ) -> None:
        self._landing = Landing(settings.home.landing)
        self._lake = Lake(settings.home.lake)
        self._spenders = spenders
        self._planner = Planner(
            landing=self._landing, lake=self._lake, ledger=ledger, specs_by_name=all_tables(), now=now
        )

    def work(self, deferrals: Sequence[Deferral]) -> Iterator[DeferredWork]:
        """Each deferral, newest day first, as they will be resumed: it finishes after all that is before it."""
        before: dict[str, list[PlanLine]] = {}
        finished_at: dict[str, datetime] = {}
        for deferral in deferrals:
            item = self._spenders.get((deferral.vendor, deferral.site))
            stream = next((s for s in streams_of(deferral.vendor) if s.name == deferral.stream), None)
            if item is None or stream is None:
                yield _unplanned(deferral)
                continue
            days = _days(deferral)
            line = self._planner.line(stream, item.context, days)
            account = item.spender.policy.account
            lines = before.setdefault(account, [])
            lines.append(line)
            soonest = max(deferral.resume_at, finished_at.get(account, deferral.resume_at))
            finished_at[account] = max(soonest, self._planner.account(item.spender, lines).finishes_at)
            yield DeferredWork(
                **_plain(deferral),
                days_to_fetch=line.days_to_fetch,
                expected_records=self._expected(stream, deferral.site, days),
                requests=line.requests,
                finishes_at=finished_at[account],
            )

    def _expected(self, stream: Stream, site: str, days: Sequence[date]) -> float | None:
        history = LandedHistory(stream, site, landing=self._landing, lake=self._lake, specs_by_name=all_tables())
        records = history.records_per_day(days)
        return None if records.certainty is Certainty.UNKNOWN else records.likely


def _unplanned(deferral: Deferral) -> DeferredWork:
    return DeferredWork(**_plain(deferral), days_to_fetch=len(_days(deferral)))


def _plain(deferral: Deferral) -> dict[str, Any]:
    names = ("vendor", "stream", "site", "first_day", "last_day", "resume_at", "reason", "landed_records")
    return {name: getattr(deferral, name) for name in names}


def _days(deferral: Deferral) -> list[date]:
    return [deferral.first_day + n * _DAY for n in range((deferral.last_day - deferral.first_day).days + 1)]
