"""The vendors, one folder each, found by looking: adding a folder adds a vendor, no list is edited anywhere.

Belongs here: finding the folders and what each must offer. Does not belong here: any vendor's name.

A vendor folder offers `streams.STREAMS`, `tables.TABLES`, `resource.RESOURCE` (its resource class) and, in the
package itself,
`definitions(settings, specs_by_name)`. Where something can be sent to it, `outbox.OPERATIONS` and `outbox.connect`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from analytics_platform.core.streams import Stream
from analytics_platform.core.tables import TableSpec

if TYPE_CHECKING:
    import dagster as dg

    from analytics_platform.core.opt_in import WriteOptIn
    from analytics_platform.core.outbox_delivery import Operation
    from analytics_platform.core.quota import Ledger
    from analytics_platform.core.resources import VendorResource
    from analytics_platform.settings import Settings

__all__ = [
    "all_operations",
    "all_streams",
    "all_tables",
    "streams_of",
    "vendor_definitions",
    "vendor_names",
    "vendor_resource",
    "vendor_writer",
]


@lru_cache(maxsize=1)
def vendor_names() -> tuple[str, ...]:
    """Vendor folders, so ordered that a vendor comes after those whose tables its streams read."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    ordered: list[str] = []

    def place(name: str) -> None:
        if name in ordered:
            return
        for stream in streams_of(name):
            for dependency in stream.depends_on:
                needed = dependency.split("/")[0]
                if needed != name:
                    place(needed)
        ordered.append(name)

    for name in found:
        place(name)
    return tuple(ordered)


def streams_of(vendor: str) -> tuple[Stream, ...]:
    """The vendor's streams."""
    streams: tuple[Stream, ...] = _module(vendor, "streams").STREAMS
    return streams


def all_streams() -> tuple[Stream, ...]:
    """Every stream of every vendor, in vendor order."""
    return tuple(stream for name in vendor_names() for stream in streams_of(name))


@lru_cache(maxsize=1)
def all_tables() -> Mapping[str, TableSpec]:
    """Every table of every vendor, by "vendor/table"."""
    return {spec.qualified_name: spec for name in vendor_names() for spec in _module(name, "tables").TABLES}


def vendor_resource(vendor: str, instance: dg.DagsterInstance | None = None) -> VendorResource:
    """The vendor's resource with its secrets resolved from the environment of this process.

    Args:
        instance: whoever has one spares Dagster making one in memory, which takes longer than all the rest.
    """
    import dagster as dg

    resources = {vendor: _module(vendor, "resource").RESOURCE.from_environment()}
    with dg.build_resources(resources, instance=instance) as built:
        resource: VendorResource = getattr(built, vendor)
    return resource


def all_operations() -> Mapping[tuple[str, str], Operation]:
    """What the outbox can send, by (vendor, operation)."""
    with_outbox = [name for name in vendor_names() if importlib.util.find_spec(f"{__name__}.{name}.outbox")]
    return {(name, key): found for name in with_outbox for key, found in _module(name, "outbox").OPERATIONS.items()}


def vendor_writer(
    vendor: str, ids: Mapping[str, str], ledger: Ledger, opt_in: WriteOptIn
) -> AbstractContextManager[Any]:
    """The class through which the vendor's operations are sent, for a site, metered by the ledger.

    Raises:
        MissingCredentials: the vendor is off.
    """
    writer: AbstractContextManager[Any] = _module(vendor, "outbox").connect(
        vendor_resource(vendor), ids, ledger, opt_in
    )
    return writer


def vendor_definitions(settings: Settings) -> list[dg.Definitions]:
    """Each vendor's own definitions page."""
    return [_module(name).definitions(settings, all_tables()) for name in vendor_names()]


def _module(vendor: str, part: str = "") -> ModuleType:
    return importlib.import_module(f"{__name__}.{vendor}{'.' + part if part else ''}")
