"""What a dbt of ours does not do for each of 450 nodes, because nobody would see a difference.

Belongs here: replacing parts of dbt-core in the process that builds (`dbt_ahead`), each with the same outcome for less
work. Does not belong here: what is built, or told (`dbt_ahead`, `assets`).

Measured on a build of 28 days, 457 nodes (2026-11-22, CPU seconds after the parse): as dbt comes, 26.3; with all this,
18.3. Most of its events are for debugging and told to nobody, yet each is parsed into a message and written as JSON
before the logger drops it. Each node's contexts make 900 macros and look them up in five dictionaries. Each test of a
kind compiles the same line of Jinja. The garbage collector looks through the manifest again and again.

A test builds the same project with and without all this and compares what is told and what is built. Importing this
module replaces nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import wraps
from importlib import import_module
from typing import Any, Final

__all__ = ["prepare", "spare"]

_COLLECTED_EACH: Final = (20_000, 20, 20)
_IMPORTED_BY_MODELS: Final = ("pandas", "analytics_platform.reconcile.frames")


def spare() -> None:
    """Replace the costly parts in this process, once; there is no way back."""
    _tell_nobody_nothing()
    _make_macros_from_a_pattern()
    _look_macros_up_once()
    _compile_a_text_once()


def prepare(manifest: Any) -> None:
    """Do ahead what a build does at first use: imports of Python models, compiled macros. What there is by then is
    never collected.

    Args:
        manifest: of dbt (`dbt.contracts.graph.manifest.Manifest`).
    """
    from dbt_common.clients.jinja import template_cache

    for name in _IMPORTED_BY_MODELS:
        import_module(name)
    for macro in manifest.macros.values():
        template_cache.get_node_template(macro)
    # What was imported and parsed stays to the end: the collector need not look for what is unused in it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_EACH)


def _tell_nobody_nothing() -> None:
    """An event for debugging becomes a message only if somebody is told, or looks at it."""
    from dbt_common.events.base_types import BaseEvent, EventLevel
    from dbt_common.events.event_manager import EventManager

    hidden = (EventLevel.DEBUG, EventLevel.TEST)
    tell = EventManager.fire_event
    make: Callable[..., None] = BaseEvent.__init__
    look_up: Callable[..., Any] = BaseEvent.__getattr__
    write: Callable[..., None] = BaseEvent.__setattr__

    @wraps(tell)
    def fire_event(
        self: Any, e: Any, level: Any = None, node: Any = None, force_warn_or_error_handling: Any = False
    ) -> None:
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

    @wraps(write)
    def set_made(self: Any, name: str, value: Any) -> None:
        if "_not_made" in vars(self):
            made(self, "pb_msg")
        write(self, name, value)

    _replace(EventManager, "fire_event", fire_event)
    _replace(BaseEvent, "__init__", keep)
    _replace(BaseEvent, "__getattr__", made)
    _replace(BaseEvent, "__setattr__", set_made)


def _make_macros_from_a_pattern() -> None:
    """The 900 macros of a node's context each take what they share from the first of their package."""
    from dbt.clients.jinja import MacroGenerator
    from dbt.context.macros import MacroNamespaceBuilder

    build = MacroNamespaceBuilder.build_namespace

    @wraps(build)
    def build_namespace(self: Any, macros_by_package: Any, ctx: Any) -> Any:
        for package, macros in macros_by_package.items():
            made: dict[str, Any] = {}
            for name, macro in macros.items():
                pattern = made.get(next(iter(made), ""))
                if pattern is None:
                    made[name] = MacroGenerator(macro, ctx, self.node, self.thread_ctx)
                    continue
                made[name] = one = MacroGenerator.__new__(MacroGenerator)
                vars(one).update(vars(pattern), macro=macro)
            is_internal = package in self.internal_package_names
            (self.internal_packages if is_internal else self.packages)[package] = made
            if not is_internal and package == self.search_package:
                self.locals.update(made)
            elif not is_internal and package == self.root_package:
                self.globals.update(made)
        return build(self, {}, ctx)

    _replace(MacroNamespaceBuilder, "build_namespace", build_namespace)


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
