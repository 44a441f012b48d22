"""Publications against the plainest model of them, with a clock that the test turns; and the circuit breaker."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gpuflow.errors import PeerUnavailable
from gpuflow.transfer.breaker import FAILURES, LONGEST_PAUSE_SECONDS, Breaker
from gpuflow.transfer.ledger import REMEMBERED, Ledger, Publication


class Nothing:
    """What is offered here."""

    def unpublish(self, *, revoke: bool) -> None:
        raise AssertionError("the ledger only keeps the books")


class LedgerAgainstADictionary(RuleBasedStateMachine):
    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.now = 0.0
        self.left: dict[bytes, int | None] = {}
        self.ends: dict[bytes, float] = {}
        self.lasts: dict[bytes, float] = {}
        self.how: dict[bytes, str] = {}
        self.number = 0

    @rule(target=tokens, reads=st.none() | st.integers(1, 3), ttl=st.sampled_from([1.0, 2.0, 5.0]))
    def offer(self, reads: int | None, ttl: float) -> bytes:
        self.number += 1
        token = self.number.to_bytes(16, "big")
        self.ledger.add(Publication(token, Nothing(), 2, 0, reads, ttl, self.now + ttl, self.now + 8.0))
        self.left[token], self.ends[token], self.lasts[token] = reads, self.now + ttl, self.now + 8.0
        return token

    @rule(token=tokens, named=st.sampled_from([None, (0, 2), (1, 2), (0, 4)]))
    def acknowledge(self, token: bytes, named: tuple[int, int] | None) -> None:
        slot, generation = named or (None, None)
        answer = self.ledger.acknowledge(token, slot=slot, generation=generation)
        if token in self.how:
            assert answer == ("duplicate" if self.how[token] == "acknowledged" else "late")
        elif named not in (None, (0, 2)):
            assert answer == "unknown"
        elif self.left[token] is None:
            assert answer == "counted"
        else:
            left = self.left[token]
            assert left is not None
            self.left[token] = left - 1
            assert answer == ("last" if left == 1 else "counted")
            if left == 1:
                assert self.ledger.end(token, "acknowledged") is not None
                self.how[token] = "acknowledged"

    @rule(token=tokens)
    def cancel(self, token: bytes) -> None:
        assert (self.ledger.end(token, "cancelled") is None) == (token in self.how)
        self.how.setdefault(token, "cancelled")

    @rule(token=tokens, ttl=st.none() | st.sampled_from([0.5, 3.0, 100.0]))
    def renew(self, token: bytes, ttl: float | None) -> None:
        before = self.ledger.open.get(token)
        own = before.ttl_seconds if before else 0.0
        assert self.ledger.renew(token, ttl, self.now) == (token not in self.how)
        if token not in self.how:
            wanted = self.now + (own if ttl is None else ttl)
            self.ends[token] = min(max(self.ends[token], wanted), self.lasts[token])

    @rule(seconds=st.sampled_from([0.4, 1.1, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        late = self.ledger.expired(self.now)
        expected = {token for token, ends in self.ends.items() if token not in self.how and ends < self.now}
        assert set(late) == expected
        assert len(late) == len(expected)
        for token in late:
            self.ledger.end(token, "expired")
            self.how[token] = "expired"

    @rule()
    def a_stranger_acknowledges(self) -> None:
        assert self.ledger.acknowledge(b"nobody's token..") == "unknown"

    @invariant()
    def exactly_those_are_open_that_have_not_ended(self) -> None:
        assert set(self.ledger.open) == set(self.ends) - set(self.how)
        for token, publication in self.ledger.open.items():
            assert publication.expires == self.ends[token]


TestLedger = LedgerAgainstADictionary.TestCase


def test_only_the_last_few_thousand_ends_are_remembered() -> None:
    ledger = Ledger()
    tokens = [number.to_bytes(16, "big") for number in range(REMEMBERED + 10)]
    for token in tokens:
        ledger.add(Publication(token, Nothing(), 2, 0, 1, 1.0, 1.0, 8.0))
        ledger.end(token, "cancelled")
    assert ledger.acknowledge(tokens[0]) == "unknown"
    assert ledger.acknowledge(tokens[-1]) == "late"


def test_a_breaker_opens_after_three_failures_and_lets_one_try_through_after_its_pause() -> None:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.check(0.0)
        breaker.failed(0.0)
    with pytest.raises(PeerUnavailable, match="3 times in a row"):
        breaker.check(0.9)
    breaker.check(1.1)
    with pytest.raises(PeerUnavailable):
        breaker.check(1.2)
    breaker.succeeded()
    breaker.check(1.3)


@pytest.mark.parametrize(("failures", "pause"), [(3, 1.0), (4, 2.0), (6, 8.0), (50, LONGEST_PAUSE_SECONDS)])
def test_each_further_failure_doubles_the_pause_up_to_half_a_minute(failures: int, pause: float) -> None:
    breaker = Breaker()
    for _ in range(failures):
        breaker.failed(100.0)
    with pytest.raises(PeerUnavailable):
        breaker.check(100.0 + pause - 0.01)
    breaker.check(100.0 + pause)


def test_two_failures_and_a_success_start_anew() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    breaker.check(0.0)


def test_an_acknowledgement_that_comes_twice_counts_once() -> None:
    ledger, token = Ledger(), b"t" * 16
    ledger.add(Publication(token, Nothing(), 2, 0, 3, 5.0, 5.0, 8.0))
    nonces = [b"first...", b"first...", b"second..", b"first...", b"third..."]
    answers = [ledger.acknowledge(token, nonce=nonce) for nonce in nonces]
    assert answers == ["counted", "duplicate", "counted", "duplicate", "last"]


def test_messages_without_a_nonce_count_each() -> None:
    ledger, token = Ledger(), b"t" * 16
    ledger.add(Publication(token, Nothing(), 2, 0, 3, 5.0, 5.0, 8.0))
    assert [ledger.acknowledge(token) for _ in range(3)] == ["counted", "counted", "last"]
