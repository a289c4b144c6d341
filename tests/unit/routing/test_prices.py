"""Each platform's price formula, against arithmetic written out here with the numbers of their price pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.untrusted import patient

from packetfs_compute.places import Prices
from packetfs_compute.routing import Capabilities, attempt_usd, locality
from packetfs_compute.routing.egress import usd_per_byte
from packetfs_compute.routing.prices import CLOUD_RUN, FLY, LAMBDA_ARM64, LAMBDA_X86, OUR_WORKER, VERCEL, WORKERS

GB = 10**9
MIB = 1 << 20
GIB = 1 << 30
MILLION = 1_000_000


def about(usd: float) -> object:
    return pytest.approx(usd, rel=1e-9, abs=1e-18)


@pytest.mark.parametrize(
    ("prices", "memory_mb", "byte_count", "seconds", "usd"),
    [
        # Workers: $0.30 a million requests; $0.02 a million CPU-ms: 1 ms a request and 400 ms a GB; waiting is free.
        (WORKERS, 128, 0, 0.0, 0.30 / MILLION + 1 * 0.02 / MILLION),
        (WORKERS, 128, GB, 0.5, 0.30 / MILLION + 401 * 0.02 / MILLION),
        (WORKERS, 128, GB, 500.0, 0.30 / MILLION + 401 * 0.02 / MILLION),
        # Ours: three calls to Durable Objects at $0.15 a million and two rows at $1.00 a million besides.
        (OUR_WORKER, 128, 0, 0.0, (0.30 + 3 * 0.15 + 2 * 1.00) / MILLION + 2 * 0.02 / MILLION),
        (OUR_WORKER, 128, GB, 0.5, 2.75 / MILLION + 1002 * 0.02 / MILLION),
        # Lambda: $0.20 a million requests; GB-seconds in steps of 1 ms, by architecture.
        (LAMBDA_X86, 1024, 0, 0.0, 0.20 / MILLION),
        (LAMBDA_X86, 1024, GB, 1.0, 0.20 / MILLION + 0.0000166667),
        (LAMBDA_X86, 1769, 0, 0.0101, 0.20 / MILLION + 0.011 * 1769 / 1024 * 0.0000166667),
        (LAMBDA_ARM64, 512, 0, 2.0, 0.20 / MILLION + 0.0000133334),
        (LAMBDA_ARM64, 128, 5 * GB, 0.0009, 0.20 / MILLION + 0.001 * 0.125 * 0.0000133334),
        # Fly: shared-cpu-1x by the second, whatever its memory.
        (FLY, 256, GB, 1.0, 7.8e-7),
        (FLY, 8192, 0, 3600.0, 3600 * 7.8e-7),
        # Vercel: $0.60 a million requests, $0.128 a CPU-hour, $0.0106 a GB-hour.
        (VERCEL, 1024, 0, 3600.0, 0.60 / MILLION + 0.001 / 3600 * 0.128 + 0.0106),
        (VERCEL, 2048, GB, 1.0, 0.60 / MILLION + 0.401 / 3600 * 0.128 + 2 / 3600 * 0.0106),
        # Cloud Run: $0.40 a million requests, a vCPU and its memory in steps of 100 ms.
        (CLOUD_RUN, 512, 0, 0.1, 0.40 / MILLION + 0.1 * 0.000024 + 0.1 * 0.5 * 0.0000025),
        (CLOUD_RUN, 1024, 0, 0.101, 0.40 / MILLION + 0.2 * 0.000024 + 0.2 * 0.0000025),
        (CLOUD_RUN, 1024, 0, 1.1, 0.40 / MILLION + 1.1 * 0.000024 + 1.1 * 0.0000025),
        # A machine of one's own.
        (Prices(), 65536, 10**12, 3600.0, 0.0),
    ],
)
def test_what_an_attempt_costs(prices: Prices, memory_mb: int, byte_count: int, seconds: float, usd: float) -> None:
    assert attempt_usd(prices, memory_mb, byte_count, seconds) == about(usd)


def test_a_gibibyte_in_128_requests_costs_next_to_nothing_but_its_egress() -> None:
    requests = 128 * WORKERS.usd_per_request
    assert requests == pytest.approx(0.00004, rel=0.05)
    source = locality("https://bucket.s3.us-east-1.amazonaws.com/object")
    edge = Capabilities("edge", "own", 128, GIB, 900, frozenset({"https"}), provider="cloudflare")
    egress = 128 * (8 * MIB) * usd_per_byte(edge, source)
    assert egress == about(1.073741824 * 0.09)
    whole = 128 * attempt_usd(WORKERS, 128, 8 * MIB, 0.2)
    assert whole < egress / 1000, "where the bytes live decides"


@pytest.mark.parametrize("steps", range(1, 200))
@pytest.mark.parametrize("prices", [LAMBDA_X86, CLOUD_RUN])
def test_a_whole_number_of_steps_is_not_billed_as_one_more(prices: Prices, steps: int) -> None:
    seconds = steps * prices.step_s
    per_s = prices.usd_per_s + prices.usd_per_gb_s
    assert attempt_usd(prices, 1024, 0, seconds) == about(prices.usd_per_request + per_s * seconds)
    assert attempt_usd(prices, 1024, 0, seconds + prices.step_s / 100) == about(
        prices.usd_per_request + per_s * (steps + 1) * prices.step_s
    )


@patient
@given(
    st.sampled_from([WORKERS, LAMBDA_X86, LAMBDA_ARM64, FLY, VERCEL, CLOUD_RUN]),
    st.integers(1, 1 << 20),
    st.integers(0, 1 << 45),
    st.integers(0, 1 << 45),
    st.floats(0, 3600),
    st.floats(0, 3600),
)
def test_more_bytes_or_more_time_are_never_cheaper(
    prices: Prices, memory_mb: int, more_bytes: int, byte_count: int, more_s: float, seconds: float
) -> None:
    usd = attempt_usd(prices, memory_mb, byte_count, seconds)
    assert prices.usd_per_request <= usd
    assert usd <= attempt_usd(prices, memory_mb, byte_count + more_bytes, seconds + more_s) * (1 + 1e-12)
