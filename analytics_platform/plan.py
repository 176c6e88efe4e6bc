"""The plan over a home's settings: every vendor, site and stream of a range of days, by account.

Belongs here: joining settings, vendors and the planner. Does not belong here: forecasting (`core.planning`,
`vendors/<v>/streams.py`), printing (`plan_cli`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from analytics_platform.core.clock import SYSTEM_CLOCK
from analytics_platform.core.fetch import SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.planning import AccountPlan, Plan, PlanLine, Planner, Spender
from analytics_platform.core.resources import VendorResource, open_ledger
from analytics_platform.settings import Settings
from analytics_platform.vendors import all_tables, streams_of, vendor_names, vendor_resource

__all__ = ["make_plan"]


def make_plan(
    settings: Settings,
    first_day: date,
    last_day: date,
    *,
    vendors: Sequence[str] = (),
    sites: Sequence[str] = (),
    refresh: bool = False,
    now: datetime | None = None,
) -> Plan:
    """Plan these days (inclusive) for the vendors and sites named, all of them by default. Sends nothing.

    Vendors without credentials are planned too, since that needs none, and listed in `Plan.off`: what their accounts
    have spent is not known, and each of their sites counts as an account of its own.
    """
    made_at = now or SYSTEM_CLOCK.now()
    days = [first_day + timedelta(days=n) for n in range((last_day - first_day).days + 1)]
    with open_ledger(settings) as ledger:
        planner = Planner(
            landing=Landing(settings.home.landing),
            lake=Lake(settings.home.lake),
            ledger=ledger,
            specs_by_name=all_tables(),
            now=made_at,
        )
        lines: list[PlanLine] = []
        spenders: dict[str, tuple[Spender, list[PlanLine]]] = {}
        off: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for vendor in vendors or vendor_names():
            resource = vendor_resource(vendor)
            for site in settings.sites_with(vendor):
                ids = site.ids(vendor)
                if ids is None or (sites and site.key not in sites):
                    continue
                missing = resource.missing_variables(ids)
                if missing:
                    off.setdefault((vendor, missing), []).append(site.key)
                context = SiteContext(key=site.key, timezone=site.timezone, ids=ids)
                found = [planner.line(stream, context, days, refresh=refresh) for stream in streams_of(vendor)]
                spender = _spender(resource, ids)
                lines += found
                account = f"{spender.policy.account} {site.key}" if missing else spender.policy.account
                spenders.setdefault(account, (spender, []))[1].extend(found)
        accounts: list[AccountPlan] = [planner.account(spender, of_it) for spender, of_it in spenders.values()]
    return Plan(
        first_day=first_day,
        last_day=last_day,
        made_at=made_at,
        lines=tuple(lines),
        accounts=tuple(accounts),
        off=tuple(
            f"{vendor} {', '.join(keys)}: {', '.join(missing)} not set" for (vendor, missing), keys in off.items()
        ),
    )


def _spender(resource: VendorResource, ids: dict[str, str]) -> Spender:
    return Spender(
        policy=resource.quota_policy(ids),
        next_plan=resource.next_plan(ids),
        connection_requests=resource.connection_requests(ids),
    )
