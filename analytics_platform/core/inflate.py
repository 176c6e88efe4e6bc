"""Content decoding that cannot be made to explode or to end early unnoticed.

Belongs here: one bounded decoder per answer, for identity, gzip and deflate.
Does not belong here: transfer coding (h11 does it), deadlines (`core.wire`), what the bytes mean (`core.strict_json`).

httpx's own decoding accepts `gzip, gzip` (660 bytes became 300 MiB) and returns a gzip body cut to two thirds as a
complete answer (RELIABILITY M4, M5). Here the output is produced in bounded steps, both caps are checked at each
step, and the end of the stream is required.
"""

from __future__ import annotations

import zlib

from analytics_platform.core.errors import MalformedResponse, ResponseTooLarge, TruncatedResponse

__all__ = ["ACCEPTED_ENCODINGS", "Decoder"]

ACCEPTED_ENCODINGS = "gzip, deflate"
_STEP_BYTES = 256 * 1024
_RATIO_FREE_BYTES = 1024 * 1024
"""Ratio is not judged below this: a small page of equal rows compresses absurdly well and harms nobody."""


class Decoder:
    """Feed it raw chunks, then `finish()`.

    Args:
        content_encoding: the header's value, all its lines joined by commas.
        max_bytes: cap on decoded bytes.
        max_ratio: cap on decoded bytes per received byte, once more than 1 MiB is decoded.

    Raises:
        MalformedResponse: more than one encoding, or an unknown one (at construction).
    """

    def __init__(self, content_encoding: str, *, max_bytes: int, max_ratio: float) -> None:
        names = [name for part in content_encoding.split(",") if (name := part.strip().lower()) not in {"", "identity"}]
        if len(names) > 1:
            raise MalformedResponse("The answer is encoded more than once, which only decompression bombs are.")
        self._encoding = names[0] if names else "identity"
        if self._encoding not in {"identity", "gzip", "x-gzip", "deflate"}:
            raise MalformedResponse("The answer uses a content encoding that was not asked for.")
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._inflater: zlib._Decompress | None = None
        self._received = 0
        self._decoded = 0
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        """Decode one raw chunk.

        Raises:
            ResponseTooLarge: a cap is passed.
            MalformedResponse: not what the header announced, or data after the end of the stream.
        """
        if not chunk:
            return
        self._received += len(chunk)
        if self._encoding == "identity":
            self._keep(chunk)
            return
        if self._inflater is None:
            self._inflater = zlib.decompressobj(self._window_bits(chunk))
        try:
            self._inflate(self._inflater, chunk)
        except zlib.error:
            raise MalformedResponse("The compressed answer is damaged or not what its header says.") from None

    def finish(self) -> bytes:
        """The decoded body.

        Raises:
            TruncatedResponse: the compressed stream has no end.
        """
        if self._inflater is not None and not self._inflater.eof:
            raise TruncatedResponse("The compressed answer ends before its end marker.")
        return b"".join(self._parts)

    @property
    def received_bytes(self) -> int:
        """Raw bytes fed so far."""
        return self._received

    @property
    def proves_its_end(self) -> bool:
        """The encoding itself shows that nothing is missing."""
        return self._inflater is not None

    def _window_bits(self, chunk: bytes) -> int:
        if self._encoding != "deflate":
            return 16 + zlib.MAX_WBITS
        # RFC 9110 §8.4.1.2 means zlib; some servers send raw deflate. A zlib header has method 8 in its low nibble
        # and window <= 7.
        is_zlib = chunk[0] & 0x0F == 8 and chunk[0] >> 4 <= 7
        return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS

    def _inflate(self, inflater: zlib._Decompress, chunk: bytes) -> None:
        if inflater.eof:
            raise MalformedResponse("The compressed answer goes on after its end marker.")
        pending = chunk
        while True:
            produced = inflater.decompress(pending, _STEP_BYTES)
            self._keep(produced)
            if inflater.unused_data:
                raise MalformedResponse("The compressed answer goes on after its end marker.")
            pending = inflater.unconsumed_tail
            if not pending and len(produced) < _STEP_BYTES:
                return  # a full step may hide more output inside zlib, even with all input taken

    def _keep(self, produced: bytes) -> None:
        self._decoded += len(produced)
        if self._decoded > self._max_bytes:
            raise ResponseTooLarge(f"The answer is larger than {self._max_bytes:,} bytes decoded.")
        if self._decoded > max(_RATIO_FREE_BYTES, self._max_ratio * self._received):
            raise ResponseTooLarge(f"The answer expands more than {self._max_ratio:g} times.")
        if produced:
            self._parts.append(produced)
