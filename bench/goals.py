"""What Trellis is to reach beside its peers, and by itself; ratios above 1 mean that Trellis is better."""

import dataclasses

from stats import ideal_speedup
from tools import LLAMA, OPENVINO, UNCACHED
from workloads import WORKLOADS


@dataclasses.dataclass(frozen=True)
class Goal:
    label: str
    piece: str
    figure: str
    ratios: dict = dataclasses.field(default_factory=dict)  # side -> the least ratio
    most: float | None = None  # of the figure itself


LARGE, SMALL = "qwen-1.5b", "smollm2"


def both(llama, openvino):
    return {LLAMA: llama, OPENVINO: openvino}


SPEED_GOALS = [
    Goal("prefill, 1.5B Q4_K_M", f"speed/{LARGE}/0", "prefill", both(1.7, 1.5)),
    Goal("prefill, 1.5B Q4_0", f"speed/{LARGE}-q4_0/0", "prefill", both(2.5, 1.5)),
    Goal("prefill, 1.5B Q8_0", f"speed/{LARGE}-q8_0/0", "prefill", both(2, 1.5)),
    Goal("prefill behind 4,096, 1.5B Q4_K_M", f"speed/{LARGE}/4096", "prefill", both(2.3, 1.4)),
    Goal("prefill, SmolLM2 Q4_1", f"speed/{SMALL}/0", "prefill", both(5, 1.5)),
    Goal("prefill behind 4,096, SmolLM2 Q4_1", f"speed/{SMALL}/4096", "prefill", both(5, 1.5)),
    Goal("decode, 1.5B Q4_K_M", f"speed/{LARGE}/0", "decode", both(1.1, 2)),
    Goal("decode behind 4,096, 1.5B Q4_K_M", f"speed/{LARGE}/4096", "decode", both(1.35, 2)),
    Goal("decode behind 6,000, SmolLM2 Q4_1", f"speed/{SMALL}/6000", "decode", both(3, 3)),
    *(
        goal
        for name, model in (("1.5B Q4_K_M", LARGE), ("SmolLM2 Q4_1", SMALL))
        for goal in (
            Goal(f"32 behind 6,000 warm, first token, {name}", f"warm/{model}", "ttft_s", both(2.5, 2)),
            Goal(f"8 streams on a trunk of 2,048, {name}", f"streams/{model}/shared-8", "decode", both(4, 2)),
        )
    ),
    Goal("second start to first token, 1.5B Q4_K_M", f"load/{LARGE}", "second_s", both(1, 1 / 0.15)),
    Goal("peak resident memory, 1.5B Q4_K_M", f"load/{LARGE}", "peak_mib", both(1 / 1.1, 1 / 0.4)),
]

CURVE = WORKLOADS["curve"]
OF_IDEAL = 0.9
CACHE_GOALS = [
    Goal("8 cold branches, tokens computed", f"branches/{SMALL}", "cold_computed", most=2560),
    Goal("8 cold branches, all done", f"branches/{SMALL}", "cold_wall_s", both(10, 5)),
    Goal("8 interleaved agents, all done", f"agents/{SMALL}", "wall_s", both(5, 5)),
    *(
        Goal(
            f"16 at once, {percent} % shared: {OF_IDEAL:.0%} of the ideal",
            f"curve/{SMALL}/{percent}",
            "rate",
            {UNCACHED: OF_IDEAL * ideal_speedup(CURVE.full.curve_requests, int(percent))},
        )
        for percent in CURVE.variants
    ),
    Goal("nothing shared: per cent of time for the cache", f"no-reuse/{SMALL}", "price", most=0.5),
    *(
        Goal(
            f"{count} behind one prefix: pages but one each, of different tokens",
            f"memory/{SMALL}/{count}",
            "kv_over_unique",
            most=1.02,
        )
        for count in WORKLOADS["memory"].variants
    ),
]
GOALS = {"Goals": SPEED_GOALS, "Goals of the cache": CACHE_GOALS}
