"""Where things stand: days, quota, settings. Reads only, sends nothing.

Belongs here: collecting facts for the `status` and `doctor` verbs. Does not belong here: printing (`cli`), the `quota`
verb (`quota_view`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.outbox_messages import Counts
from analytics_platform.core.quota_policy import Deferral, WindowUsage
from analytics_platform.core.resources import VendorResource, open_ledger
from analytics_platform.core.truths import HELD_BACK
from analytics_platform.settings import Settings, Site

__all__ = ["Finding", "Status", "VendorStatus", "diagnose", "read_outbox", "read_status"]


@dataclass(frozen=True, kw_only=True)
class VendorStatus:
    """One vendor at one site. Days are partition days of the vendor's first table; a complete day is one that the marts
    may use: decoded, and not held back by a failed blocking check.
    """

    vendor: str
    site: str
    missing_variables: tuple[str, ...]
    complete_days: int
    newest_day: date | None
    newest_rows: int
    landed_at: datetime | None
    deferred_until: datetime | None
    blocked_partitions: int


@dataclass(frozen=True, kw_only=True)
class Status:
    """The whole home."""

    home: str
    vendors: tuple[VendorStatus, ...]
    published_version: int | None
    published_at: datetime | None
    quota: tuple[WindowUsage, ...] = ()
    outbox: tuple[Counts, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of `doctor`; `required` findings make it fail."""

    subject: str
    ok: bool
    required: bool
    text: str


def read_status(settings: Settings) -> Status:
    """Days, deferrals, blocked partitions and the last publish."""
    from analytics_platform.vendors import vendor_names

    with open_ledger(settings) as ledger:
        deferrals = ledger.deferrals()
        quota = tuple(window for account in ledger.accounts() for window in ledger.usage(account))
    blocked = Lake(settings.home.lake).blocked()
    vendors = [
        _vendor_status(settings, vendor, site, deferrals, blocked)
        for vendor in vendor_names()
        for site in settings.sites_with(vendor)
    ]
    version, built_at = _published(settings)
    return Status(
        home=str(settings.home.root),
        vendors=tuple(vendors),
        published_version=version,
        published_at=built_at,
        quota=quota,
        outbox=read_outbox(settings),
    )


def read_outbox(settings: Settings) -> tuple[Counts, ...]:
    """Messages by vendor, operation, site and state. A home that never sent anything gets no outbox by being asked."""
    from analytics_platform.core.outbox import open_outbox

    if settings.database_url is None and not settings.home.outbox.exists():
        return ()
    with open_outbox(settings) as outbox:
        return outbox.counts()


def _vendor_status(
    settings: Settings,
    vendor: str,
    site: Site,
    deferrals: tuple[Deferral, ...],
    blocked: Collection[tuple[str, str, str, date]],
) -> VendorStatus:
    from analytics_platform.vendors import streams_of

    lake = Lake(settings.home.lake)
    landing = Landing(settings.home.landing)
    stream = next((s for s in streams_of(vendor) if s.span != "snapshot"), streams_of(vendor)[0])
    table = stream.tables[0]
    of_site = {(name, day) for v, name, key, day in blocked if v == vendor and key == site.key}
    held_back = {day for name, day in of_site if name == table.name or name.startswith(HELD_BACK)}
    days = lake.days(table, site.key)
    newest = days[-1] if days else None
    landed = [b.landed_at for b in landing.batches(vendor, stream.name, site.key) if b.landed_at is not None]
    waiting = [d.resume_at for d in deferrals if d.vendor == vendor and d.site == site.key]
    return VendorStatus(
        vendor=vendor,
        site=site.key,
        missing_variables=_resource(vendor).missing_variables(site.ids(vendor) or {}),
        complete_days=len(set(days) - held_back),
        newest_day=newest,
        newest_rows=lake.row_counts(table, site.key, [newest]).get(newest, 0) if newest else 0,
        landed_at=max(landed, default=None),
        deferred_until=min(waiting, default=None),
        blocked_partitions=len(of_site),
    )


def diagnose(settings: Settings) -> list[Finding]:
    """What a person has to fix, and what is merely off."""
    from analytics_platform.vendors import vendor_names

    findings = [_sites_finding(settings), _writable_finding(settings)]
    for vendor in vendor_names():
        for site in settings.sites_with(vendor):
            missing = _resource(vendor).missing_variables(site.ids(vendor) or {})
            text = (
                "credentials are set"
                if not missing
                else f"{', '.join(missing)} not set: {vendor} is off, the others work (see vendors/{vendor}/README.md)"
            )
            findings.append(Finding(subject=f"{vendor} {site.key}", ok=not missing, required=False, text=text))
    return findings


def _sites_finding(settings: Settings) -> Finding:
    if settings.sites:
        text = f"{len(settings.sites)} in {settings.config_path}"
        return Finding(subject="sites", ok=True, required=True, text=text)
    return Finding(
        subject="sites",
        ok=False,
        required=True,
        text="no sites.yaml: copy sites.example.yaml to sites.yaml, or run `analytics-platform demo`",
    )


def _writable_finding(settings: Settings) -> Finding:
    probe = settings.home.root
    try:
        probe.mkdir(parents=True, exist_ok=True)
        test = probe / ".writable"
        test.write_bytes(b"")
        test.unlink()
    except OSError as error:
        return Finding(subject="home", ok=False, required=True, text=f"{probe} cannot be written: {error.strerror}")
    return Finding(subject="home", ok=True, required=True, text=str(probe))


def _resource(vendor: str) -> VendorResource:
    from analytics_platform.vendors import vendor_resource

    return vendor_resource(vendor)


def _published(settings: Settings) -> tuple[int | None, datetime | None]:
    from analytics_platform.transform.publish import current

    publication = current(settings.home)
    return (None, None) if publication is None else (publication.version, publication.published_at)
