"""The operational files of this home: which sites, streams and ledger they are made from.

Belongs here: putting settings, vendors, ledger and lake together for `core.ops_log`. Does not belong here: what the
files hold (`core.ops_log`), what the models make of them.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext

from analytics_platform.core.clock import SYSTEM_CLOCK, Clock
from analytics_platform.core.errors import PlatformError
from analytics_platform.core.fetch import SiteContext
from analytics_platform.core.lake import Lake
from analytics_platform.core.landing import Landing
from analytics_platform.core.ops_log import OpsLog, SiteStreams
from analytics_platform.core.resources import open_ledger
from analytics_platform.settings import Settings

__all__ = ["export_ops"]

logger = logging.getLogger(__name__)


def export_ops(settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> None:
    """Bring `lake/_ops` up to date. A ledger or landing that cannot be read is logged and keeps the files of before:
    the numbers about the work never stop the work.

    Raises:
        StorageError: not even files without rows could be written.
    """
    log = OpsLog(Lake(settings.home.lake), Landing(settings.home.landing, clock=clock))
    # A home that never sent anything gets no ledger by being asked.
    has_ledger = settings.database_url is not None or settings.home.ledger.is_file()
    try:
        with open_ledger(settings, clock) if has_ledger else nullcontext() as ledger:
            log.export(_site_streams(settings), ledger, clock.now())
    except PlatformError as error:
        logger.warning("The operational marts keep what they had: %s", error)
        log.prepare()


def _site_streams(settings: Settings) -> list[SiteStreams]:
    from analytics_platform.vendors import streams_of, vendor_names

    return [
        SiteStreams(
            site=SiteContext(key=site.key, timezone=site.timezone, ids=site.ids(vendor) or {}),
            start_date=site.start_date,
            streams=streams_of(vendor),
        )
        for vendor in vendor_names()
        for site in settings.sites_with(vendor)
    ]
