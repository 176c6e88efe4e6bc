"""What a dbt of ours does not do for each of 450 nodes, because nobody would see a difference.

Belongs here: replacing parts of dbt-core in the process that builds (`dbt_ahead`), each with the same outcome for less
work. Does not belong here: what is built, or told (`dbt_ahead`, `assets`).

Measured on a build of 28 days, 457 nodes (2026-11-22, CPU seconds after the parse): as dbt comes, 26.3. The five
sixths of its events that are for debugging are told to nobody, yet each is parsed into a message and written as JSON
before the logger drops it; each node's context looks 900 macros up in five dictionaries; each of 250 tests of a kind
compiles the same line of Jinja.

A test builds the same project with and without all this and compares what is told and what is built. Nothing is replaced
by importing this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any, Final

__all__ = ["prepare", "spare"]

_IMPORTED_BY_MODELS: Final = ("pandas", "analytics_platform.reconcile.frames")


def spare() -> None:
    """Replace the costly parts in this process, once; there is no way back."""
    _tell_nobody_nothing()
    _look_macros_up_once()
    _compile_a_text_once()


def prepare(manifest: Any) -> None:
    """Do ahead what a build does at first use: imports of Python models, compiled macros.

    Args:
        manifest: of dbt (`dbt.contracts.graph.manifest.Manifest`).
    """
    from dbt_common.clients.jinja import template_cache

    for name in _IMPORTED_BY_MODELS:
        import_module(name)
    for macro in manifest.macros.values():
        template_cache.get_node_template(macro)


def _tell_nobody_nothing() -> None:
    """An event for debugging becomes a message only if somebody is told, or looks at it."""
    from dbt_common.events.base_types import BaseEvent, EventLevel
    from dbt_common.events.event_manager import EventManager

    hidden = (EventLevel.DEBUG, EventLevel.TEST)
    tell = EventManager.fire_event
    make = BaseEvent.__init__
    look_up = BaseEvent.__getattr__

    @wraps(tell)
    def fire_event(self: Any, e: Any, level: Any = None, node: Any = None, force_warn_or_error_handling: Any = False) -> None:
        is_hidden = (level or e.level_tag()) in hidden and not force_warn_or_error_handling
        if not is_hidden or any(logger.level in hidden for logger in self.loggers):
            tell(self, e, level, node, force_warn_or_error_handling)

    @wraps(make)
    def keep(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.level_tag() is EventLevel.DEBUG and not args:
            vars(self)["_not_made"] = kwargs
        else:
            make(self, *args, **kwargs)

    @wraps(look_up)
    def made(self: Any, name: str) -> Any:
        kwargs = vars(self).pop("_not_made", None)
        if kwargs is not None:
            make(self, **kwargs)
        return vars(self)["pb_msg"] if name == "pb_msg" else look_up(self, name)

    _replace(EventManager, "fire_event", fire_event)
    _replace(BaseEvent, "__init__", keep)
    _replace(BaseEvent, "__getattr__", made)


def _look_macros_up_once() -> None:
    """All macros of a node in one dictionary, which `dict.update` takes as it is, instead of five searched by name."""
    from dbt.context.macros import MacroNamespace

    make = MacroNamespace.__init__

    @wraps(make)
    def flatten(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        found: dict[str, Any] = {}
        for names in reversed(list(self._search_order())):
            found.update(names)
        vars(self)["_flat"] = found

    def item(self: Any, name: str) -> Any:
        return self._flat[name]

    def keys(self: Any) -> Any:
        return self._flat.keys()

    def each(self: Any) -> Iterator[str]:
        return iter(self._flat)

    _replace(MacroNamespace, "__init__", flatten)
    _replace(MacroNamespace, "__getitem__", item)
    _replace(MacroNamespace, "__iter__", each)
    _replace(MacroNamespace, "keys", keys)


def _compile_a_text_once() -> None:
    """The code of a Jinja text, by the kind of environment; what it may call, and for which node, is bound later."""
    from jinja2 import Environment

    compiled: dict[tuple[type, str], Any] = {}
    work: Callable[..., Any] = Environment.compile

    @wraps(work)
    def compile_once(self: Any, source: Any, name: Any = None, filename: Any = None, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(source, str) or name is not None or filename is not None or args or kwargs:
            return work(self, source, name, filename, *args, **kwargs)
        key = (type(self), source)
        if key not in compiled:
            compiled[key] = work(self, source)
        return compiled[key]

    _replace(Environment, "compile", compile_once)


def _replace(owner: type, name: str, new: Callable[..., Any]) -> None:
    setattr(owner, name, new)
