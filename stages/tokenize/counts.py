"""Counts of the rows of a split: everything dropped is counted, in rows and in tokens."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from stages.process.job import Metrics
from stages.tokens.encoder import Array


@dataclass
class Counts:
    """Counts of one split."""

    rows_in: int = 0
    rows_out: int = 0
    tokens_in: int = 0
    """Tokens before truncation and before rows are left out; rows that cannot be encoded have none."""
    tokens: int = 0
    supervised_tokens: int = 0
    longest: int = 0
    completions: int = 0
    """Supervised answers with their end token."""
    truncated: int = 0
    truncated_tokens: int = 0
    cut_up: int = 0
    """Rows that were split into several."""
    added_rows: int = 0
    added_tokens: int = 0
    """Tokens repeated as context at the beginning of a split piece."""
    moved_boundaries: int = 0
    mismatches: int = 0
    unrolled: int = 0
    """Conversations unrolled into one row per supervised turn."""
    unrolled_rows: int = 0
    pairs: int = 0
    """Pairs of answers; all other numbers count each answer as a row."""
    desirable: int = 0
    undesirable: int = 0
    """Answers that were judged alone."""
    cut_off: int = 0
    """Answers without a supervised end, since they were cut off."""
    conversations: int = 0
    """Units of an epoch, if an unrolled conversation counts as one."""
    control_token_rows: int = 0
    """Rows whose text contains control tokens, including rows left out for them."""
    control_tokens: int = 0
    unrendered: Counter[str] = field(default_factory=Counter)
    """Rows used although the template omits part of their messages, by that part."""
    reasoning: Counter[str] = field(default_factory=Counter)
    """Messages whose reasoning is not supervised: `masked` or `stripped`."""
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_tokens: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str, rows: int, tokens: int) -> None:
        """Count ROWS with TOKENS in total as left out for REASON."""
        if rows:
            self.left_out[reason] += rows
            self.left_out_tokens[reason] += tokens

    def write(self, supervised: Array, lengths: Array, completions: int) -> None:
        """Count written rows of LENGTHS tokens."""
        self.rows_out += len(lengths)
        self.tokens += len(supervised)
        self.supervised_tokens += int(np.count_nonzero(supervised))
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        self.completions += completions

    def metrics(self) -> Metrics:
        """The metrics of the split; asserts that every row and token read was written, left out or truncated."""
        extra = self.unrolled_rows - self.unrolled
        assert self.rows_in + extra + self.added_rows == self.rows_out + sum(self.left_out.values())
        gone = sum(self.left_out_tokens.values()) + self.truncated_tokens
        assert self.tokens_in + self.added_tokens == self.tokens + gone
        special = {
            "pairs": self.pairs,
            "desirable": self.desirable,
            "undesirable": self.undesirable,
            "cut_off": self.cut_off,
            "conversations": self.conversations,
            "unrolled": {"conversations": self.unrolled, "rows": self.unrolled_rows} if self.unrolled else None,
            "control_tokens_in_text": {"rows": self.control_token_rows, "tokens": self.control_tokens} if self.control_tokens else None,
            "unrendered": dict(sorted(self.unrendered.items())),
            "reasoning": dict(sorted(self.reasoning.items())),
        }
        return {
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "left_out": dict(sorted(self.left_out.items())),
            "left_out_tokens": dict(sorted(self.left_out_tokens.items())),
            "truncated": self.truncated,
            "truncated_tokens": self.truncated_tokens,
            "split": self.cut_up,
            "rows_from_splits": self.added_rows,
            "round_trip_mismatch": self.mismatches,
            "moved_boundaries": self.moved_boundaries,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "completions": self.completions,
            "longest": self.longest,
            **{name: value for name, value in special.items() if value},
        }
