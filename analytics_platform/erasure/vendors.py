"""Asking vendors to forget somebody, and asking again until they say that nobody is there.

Belongs here: finding the vendors that offer it, and what came of asking. Does not belong here: a vendor's wire
(`vendors/<v>/erasure.py`), any vendor's name, our own stores.

A vendor folder with an `erasure` module offers it: the vendor's resource has `erasure(ids, ledger, opt_in)`, which
gives an object whose `forget` takes, by keyword, ids of the site's block in sites.yaml (`site_code`), lists of keys
named by the plural of their kind (`visitor_codes` for the kind `<vendor>_visitor_code`, `uids` for `uid`) and
`confirm`; the module's `*_phrase` function gives the words for the same arguments. Where `forget` is itself an endpoint
of the vendor it is always called; where it is made of deletes (of recordings, say) only when asked for by `also_at`.
Whether the person is gone is read back with the reading client's `visitor`, which takes the same words in the singular.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from analytics_platform.core.clock import Clock
from analytics_platform.core.endpoints import endpoints_of
from analytics_platform.core.errors import MissingCredentials, NotFound, PlatformError, QuotaError, VendorError
from analytics_platform.core.failpoints import passing
from analytics_platform.core.opt_in import Confirmation, WriteOptIn
from analytics_platform.core.tombstones import Key
from analytics_platform.erasure.request import VendorState
from analytics_platform.settings import Settings

if TYPE_CHECKING:
    from analytics_platform.core.quota import Ledger

__all__ = ["VENDOR_ROUNDS", "Asking", "askings"]

VENDOR_ROUNDS: Final = 5
"""How often a vendor is asked to forget before its silence is left for a later run."""

_FIRST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Asking:
    """One vendor to be asked at one site, with the arguments of its `forget`."""

    vendor: str
    site: str
    ids: Mapping[str, str]
    module: ModuleType
    arguments: Mapping[str, object]
    keys: int

    def forget(self, ledger: Ledger, *, reason: str, clock: Clock) -> VendorState:
        """Ask until the vendor shows nothing of the person, at most `VENDOR_ROUNDS` times.

        Out of quota, without credentials or while the vendor fails, the state is `pending` and says why.
        """
        from analytics_platform.vendors import vendor_resource

        state, why = "pending", ""
        try:
            resource = vendor_resource(self.vendor)
            resource.require(self.ids)
            opt_in = WriteOptIn(vendor=self.vendor, reason=reason)
            # The base class knows only vendors that are read.
            open_erasure: Any = resource.erasure  # type: ignore[attr-defined]
            with open_erasure(self.ids, ledger, opt_in) as erasure, resource.connect(self.ids, ledger) as client:
                state, why = self._until_gone(erasure, client, clock)
        except MissingCredentials as error:
            why = f"not asked: {error.what}"
        except QuotaError as error:
            until = f" until {error.resume_at:%Y-%m-%d %H:%M UTC}" if error.resume_at else ""
            why = f"out of quota{until}"
        except VendorError as error:
            why = str(error)
        passing("erasure.vendor_asked")
        return VendorState(vendor=self.vendor, site=self.site, state=state, reason=why, keys=self.keys, at=clock.now())

    def _until_gone(self, erasure: Any, client: Any, clock: Clock) -> tuple[str, str]:
        confirm = Confirmation(str(_called(_phrase(self.module), self.arguments)))
        pause = _FIRST_PAUSE_SECONDS
        for round_number in range(1, VENDOR_ROUNDS + 1):
            _called(erasure.forget, {**self.arguments, "confirm": confirm})
            if not self._still_there(client):
                return "confirmed", f"forgotten, and nothing found when asked ({round_number} times)"
            if round_number < VENDOR_ROUNDS:
                clock.sleep(pause)
                pause *= 2
        return "pending", "accepted, but the vendor still shows the person: it may need more time"

    def _still_there(self, client: Any) -> bool:
        """Whether the vendor's own reading endpoint still knows one of the keys."""
        for arguments in self._questions(client):
            try:
                page = client.visitor(**arguments)
            except NotFound:
                continue
            if page.records:
                return True
        return False

    def _questions(self, client: Any) -> Iterable[dict[str, object]]:
        parameters = inspect.signature(client.visitor).parameters
        shared = {name: value for name, value in self.arguments.items() if name in parameters}
        for name, values in self.arguments.items():
            if isinstance(values, list) and name.removesuffix("s") in parameters:
                for value in values:
                    yield {**shared, name.removesuffix("s"): value}


def askings(settings: Settings, keys: Iterable[Key], *, also_at: Sequence[str]) -> list[Asking]:
    """The vendors to ask, each at the sites where it has something to forget."""
    from analytics_platform.vendors import vendor_names

    known = list(keys)
    found = []
    for vendor in vendor_names():
        module = _erasure_module(vendor)
        if module is None or not (_is_offered(module) or vendor in also_at):
            continue
        for site in settings.sites_with(vendor):
            ids = site.ids(vendor) or {}
            arguments, count = _arguments(module, vendor, ids, [k for k in known if k.site in (None, site.key)])
            if count:
                found.append(
                    Asking(vendor=vendor, site=site.key, ids=ids, module=module, arguments=arguments, keys=count)
                )
    return found


def offering(settings: Settings) -> list[str]:
    """Vendors with an `erasure` module, whether they are asked always or only when named."""
    from analytics_platform.vendors import vendor_names

    return [vendor for vendor in vendor_names() if _erasure_module(vendor) is not None]


def _erasure_module(vendor: str) -> ModuleType | None:
    name = f"analytics_platform.vendors.{vendor}.erasure"
    return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None


def _erasure_class(module: ModuleType) -> type:
    offered = [
        c for n, c in vars(module).items() if inspect.isclass(c) and n in module.__all__ and hasattr(c, "forget")
    ]
    if len(offered) != 1:
        raise PlatformError(f"{module.__name__} offers {len(offered)} classes with forget; it must be one.")
    return offered[0]


def _is_offered(module: ModuleType) -> bool:
    return "forget" in endpoints_of(_erasure_class(module))


def _phrase(module: ModuleType) -> Any:
    return next(getattr(module, name) for name in module.__all__ if name.endswith("phrase"))


def _called(function: Any, arguments: Mapping[str, object]) -> object:
    """Call by name with those of the arguments the function takes."""
    parameters = inspect.signature(function).parameters
    return function(**{name: value for name, value in arguments.items() if name in parameters})


def _arguments(
    module: ModuleType, vendor: str, ids: Mapping[str, str], keys: list[Key]
) -> tuple[dict[str, object], int]:
    """Arguments of the vendor's `forget` for these keys, and how many keys are among them."""
    arguments: dict[str, object] = {}
    count = 0
    for name in inspect.signature(_erasure_class(module).forget).parameters:  # type: ignore[attr-defined]
        if name in ids:
            arguments[name] = ids[name]
        elif name.endswith("s") and name not in ("self", "kwargs"):
            kinds = {name.removesuffix("s"), f"{vendor}_{name.removesuffix('s')}"}
            values = sorted({key.value for key in keys if key.kind in kinds})
            arguments[name] = values
            count += len(values)
    return arguments, count
