"""Keep secrets and people out of every text that leaves the process: logs, exceptions, metadata.

Belongs here: `redact`, the registry of known secret values, and their installation into `logging`.
Does not belong here: which columns are personal (`core.tables.Sensitivity`), what lands on disk (pages are kept as
received).

Two nets. Known values (`register_secret`) are masked exactly, also when percent-encoded, JSON-escaped or in base64.
Unknown ones are masked by shape: e-mails, IP addresses, bearer and basic tokens, `accessResourceKey`, URL queries,
long hex and base64. Loopback addresses stay: they name nobody and are what a person debugs with.
"""

from __future__ import annotations

import base64
import ipaddress
import itertools
import json
import logging
import re
import threading
import traceback
from collections.abc import Callable
from urllib.parse import quote

__all__ = ["RedactingFilter", "install_redaction", "redact", "register_secret"]

_SHORTEST_SECRET = 6
"""Shorter registered values are ignored: masking them would eat ordinary words and protect nothing."""

_LOUD_LOGGERS = ("httpx", "httpcore", "urllib3", "dbt", "great_expectations", "dagster")


_MASKS = frozenset({"[secret]", "[email]", "[ip]", "[query]"})


def _keep_masks(match: re.Match[str]) -> str:
    return match.group(0) if match.group(0) in _MASKS else "[secret]"


class _Registry:
    """Known secret values in all the spellings they can take, longest first in one alternation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spellings: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        if len(value) < _SHORTEST_SECRET:
            return
        encoded = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode("ascii")
        spellings = {value, quote(value, safe=""), json.dumps(value)[1:-1], encoded.rstrip("=")}
        with self._lock:
            if spellings <= self._spellings:
                return
            self._spellings |= spellings
            ordered = sorted(self._spellings, key=len, reverse=True)
            # Masks come first, so that a secret spelled like part of one cannot eat it; "=" is the padding of base64.
            self._pattern = re.compile(
                rf"\[(?:secret|email|ip|query)\]|(?:{'|'.join(map(re.escape, ordered))})={{0,2}}"
            )

    def mask(self, text: str) -> str:
        pattern = self._pattern
        return text if pattern is None else pattern.sub(_keep_masks, text)


_registry = _Registry()


def register_secret(value: str) -> None:
    """From now on `redact` masks this value wherever it appears. Values under 6 characters are ignored. Thread-safe."""
    _registry.add(value)


def redact(text: str) -> str:
    """The text without secrets and without the direct identifiers of people. Idempotent.

    Masks become `[secret]`, `[email]`, `[ip]` and, for URL queries, `?[query]`.
    """
    text = _registry.mask(text)
    for pattern, replacement in _SHAPES:
        text = pattern.sub(replacement, text)
    return text


class RedactingFilter(logging.Filter):
    """Redacts a record's message and traceback in place; never drops a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        if not getattr(record, "is_redacted", False):
            _redact_record(record)
        elif record.exc_info:
            _redact_traceback(record)
        return True


def install_redaction() -> None:
    """Redact every log record made in this process from now on. Safe to call twice.

    A filter on a logger misses the records of its children, and one on a handler misses handlers added later; so
    records are redacted as they are made, and the filter on the loud loggers and on the root's handlers is the second
    net.
    """
    current = logging.getLogRecordFactory()
    if not getattr(current, "is_redacting", False):
        logging.setLogRecordFactory(_redacting(current))
    root = logging.getLogger()
    for holder in (root, *root.handlers, *map(logging.getLogger, _LOUD_LOGGERS)):
        if not any(isinstance(present, RedactingFilter) for present in holder.filters):
            holder.addFilter(RedactingFilter())


def _redacting(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def make(*args: object, **kwargs: object) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        _redact_record(record)
        return record

    make.is_redacting = True  # type: ignore[attr-defined]
    return make


def _redact_record(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = str(
            record.msg
        )  # wrong format arguments must not bring a secret out through logging's own error report
    record.msg, record.args = redact(message), ()
    _redact_traceback(record)
    record.is_redacted = True


def _redact_traceback(record: logging.LogRecord) -> None:
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        record.exc_text = redact("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))
        record.exc_info = None  # formatters print exc_text; nothing may format the original again
    if record.stack_info:
        record.stack_info = redact(record.stack_info)


def _mask_address(match: re.Match[str]) -> str:
    text = match.group(0)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return text if address.is_loopback or address.is_unspecified else "[ip]"


def _mask_random(match: re.Match[str]) -> str:
    """Mask what looks drawn by lot: base64 changes between upper, lower and digit all the time."""
    text = match.group(0)
    kinds = ["u" if c.isupper() else "l" if c.islower() else "d" if c.isdigit() else "" for c in text]
    letters = [kind for kind in kinds if kind]
    changes = sum(1 for left, right in itertools.pairwise(letters) if left != right)
    is_random = {"u", "l"} <= set(letters) and letters.count("d") >= 2 and changes > 0.25 * len(letters)
    return "[secret]" if is_random else text


_Replacement = str | Callable[[re.Match[str]], str]
_SHAPES: tuple[tuple[re.Pattern[str], _Replacement], ...] = (
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20)(?!authentication\b)[\w.~+/=%-]{6,}"), r"\1 [secret]"),
    (
        re.compile(
            r"(?i)(accessResourceKey|access_token|client_secret|api_?token|api_?key)([\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)}\[]+"
        ),
        r"\1\2[secret]",
    ),
    (re.compile(r"(?<![\w.+-])[\w.%+'-]{1,64}(?:@|%40)[\w-]{1,63}(?:\.[\w-]{1,63})+"), "[email]"),
    (re.compile(r"\?(?!\[query\])[\w.\[\]%-]{1,100}=[^\s\"'<>]*"), "?[query]"),
    (re.compile(r"(?i)(\bhttps?://[^\s\"'<>?#]{1,2000})\?(?!\[query\])[^\s\"'<>]+"), r"\1?[query]"),
    (re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"), _mask_address),
    (
        re.compile(r"(?i)(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}(?:[0-9a-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])"),
        _mask_address,
    ),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]+){0,2}"), "[secret]"),
    (re.compile(r"(?i)(?<![\w-])[0-9a-f]{32,}(?![\w-])"), "[secret]"),
    (re.compile(r"(?<![\w+/-])[A-Za-z0-9+/_-]{32,}={0,2}"), _mask_random),
)
