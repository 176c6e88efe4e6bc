"""Asking a vendor how many requests it has counted, and believing it.

Belongs here: when to ask (`Ledger.is_in_doubt`) and what to do when the answer fails. Does not belong here: the call
(`VendorResource.reported_usage`), the bookkeeping (`core.quota`). Knows no Dagster step.

RELIABILITY D3 (somebody else spends the token), D7 (the ledger is lost), D11 (the plan changed). Nobody says whether
such a question is counted itself, so it is counted here, and asked only when its answer may free or save requests.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from analytics_platform.core.errors import PlatformError, StorageError
from analytics_platform.core.quota_policy import ReportedUsage

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger
    from analytics_platform.core.resources import VendorResource

__all__ = ["ask_usage", "settle_doubt"]

logger = logging.getLogger(__name__)


def settle_doubt(resource: VendorResource, ids: Mapping[str, str], ledger: Ledger) -> ReportedUsage | None:
    """Ask the vendor where its count would change ours; at most once in ten minutes, whoever calls.

    Returns what was adopted. A failed question changes nothing: the ledger goes on with the worse assumption.

    Raises:
        StorageError: the ledger cannot be used.
    """
    policy = resource.quota_policy(ids)
    if not ledger.is_in_doubt(policy, policy.method_class("GET")):
        return None
    return ask_usage(resource, ids, ledger)


def ask_usage(resource: VendorResource, ids: Mapping[str, str], ledger: Ledger) -> ReportedUsage | None:
    """Ask now, and adopt the answer. None where the vendor does not say or did not answer.

    Raises:
        StorageError: the ledger cannot be used.
    """
    try:
        reported = resource.reported_usage(ids, ledger)
    except StorageError:
        raise
    except PlatformError as error:
        logger.warning("%s did not say how many requests it counted: %s", resource.vendor, error)
        return None
    if reported is None:
        return None
    account = resource.quota_policy(ids).account
    ledger.adopt_usage(account, reported.method_class, reported.used, possible_limits=reported.possible_limits)
    logger.info("%s says it counted %d requests", resource.vendor, reported.used)
    return reported
