"""What an attempt costs: each platform's real price formula, in USD, as of 2026-11.

Sources: the platforms' public price pages, Workers (requests and CPU time), Lambda (requests and GB-seconds by
architecture), Fly.io (machine seconds), Vercel (CPU hours and GB-hours), Cloud Run (vCPU- and GiB-seconds). Egress from
the source is apart (:mod:`packetfs_compute.routing.egress`): where the bytes live decides more than all of these.
"""

import math
from dataclasses import replace
from typing import Final

from packetfs_compute.places import Prices

__all__ = ["CLOUD_RUN", "FLY", "LAMBDA_ARM64", "LAMBDA_X86", "OUR_WORKER", "VERCEL", "WORKERS", "attempt_usd"]

_MB_PER_GB: Final = 1024
_SLACK: Final = 1e-6
"""Of a step: 1.1 s are eleven steps of 0.1 s, although 1.1 / 0.1 is more than 11 in floating point."""

WORKERS: Final = Prices(usd_per_request=0.30e-6, usd_per_cpu_s=0.02e-3, cpu_s_per_gb=0.4, cpu_s_per_request=1e-3)
"""$0.30 a million requests, $0.02 a million CPU-milliseconds; waiting for the source is free."""
OUR_WORKER: Final = replace(WORKERS, usd_per_request=2.75e-6, cpu_s_per_gb=1.0, cpu_s_per_request=2e-3)
"""What ``remote/cloudflare/`` makes of that: a job is one request, three calls to Durable Objects ($0.15 a million) and two
rows written there ($1.00 a million); its CPU time is measured, an upper bound."""
LAMBDA_X86: Final = Prices(usd_per_request=0.20e-6, usd_per_gb_s=0.0000166667, step_s=0.001)
LAMBDA_ARM64: Final = Prices(usd_per_request=0.20e-6, usd_per_gb_s=0.0000133334, step_s=0.001)
FLY: Final = Prices(usd_per_s=7.8e-7)
"""One shared-cpu-1x machine of 256 MB. An attempt is charged the whole machine: it may be alone on it."""
VERCEL: Final = Prices(
    usd_per_request=0.60e-6, usd_per_gb_s=0.0106 / 3600, usd_per_cpu_s=0.128 / 3600, cpu_s_per_gb=0.4,
    cpu_s_per_request=1e-3,
)  # fmt: skip
CLOUD_RUN: Final = Prices(usd_per_request=0.40e-6, usd_per_s=0.000024, usd_per_gb_s=0.0000025, step_s=0.1)


def attempt_usd(prices: Prices, memory_mb: int, byte_count: float, seconds: float) -> float:
    """Return what the platform charges for one attempt over ``byte_count`` bytes that takes ``seconds``."""
    if prices.step_s:
        seconds = math.ceil(seconds / prices.step_s - _SLACK) * prices.step_s
    cpu_s = prices.cpu_s_per_request + prices.cpu_s_per_gb * byte_count / 1e9
    return (
        prices.usd_per_request
        + prices.usd_per_s * seconds
        + prices.usd_per_gb_s * seconds * memory_mb / _MB_PER_GB
        + prices.usd_per_cpu_s * cpu_s
    )
