"""Tokens as they were counted while they arrived, beside what the server said of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fairshare.records import Phase, RequestRecord


@dataclass(slots=True)
class TokenTally:
    """One tenant's streamed successes of the measured phase.

    ``counted`` are the tokens of the chunks, ``usage`` the server's own count; in
    ``differing_requests`` they were not the same. ``empty_chunks`` carried no token.
    """

    counted: int = 0
    usage: int = 0
    differing_requests: int = 0
    empty_chunks: int = 0

    def add(self, record: RequestRecord) -> None:
        """Take a record; those of other phases, failures and whole answers do not count."""
        if record.phase is not Phase.MEASURE or not record.ok or record.empty_chunks is None:
            return
        counted, usage = sum(record.chunk_tokens), record.output_tokens or 0
        self.counted += counted
        self.usage += usage
        self.differing_requests += counted != usage
        self.empty_chunks += record.empty_chunks

    def report(self) -> dict[str, int]:
        """As ``cell.json`` keeps it."""
        return asdict(self)
