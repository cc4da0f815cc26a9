"""What every workload is made of: sizes, figures, settings of each side, and the base class.

A workload knows nothing of repetitions. `measure` runs one side once, from the start of its process to its end, and
returns {figure: value}, and whatever else is worth keeping.
"""

import dataclasses

from texts import Prompts, sample_text
from tools import LLAMA, OPENVINO, OURS, UNCACHED, Setting


@dataclasses.dataclass(frozen=True)
class Sizes:
    """In tokens, but for `branches`."""

    prefill: int = 512
    decode: int = 64
    trunk: int = 2048  # shared by branches and streams
    own: int = 32  # behind the trunk, and behind what is warm
    branches: int = 8
    branch_out: int = 16
    warm: int = 6000
    warm_out: int = 32
    stream_own: int = 8  # behind the shared trunk
    alone: int = 256  # prompt of a stream that shares nothing
    stream_out: int = 64

    def trial(self):
        """Enough to tell settings apart."""
        return dataclasses.replace(self, decode=min(self.decode, 16), stream_out=min(self.stream_out, 24))


FULL = Sizes()
QUICK = Sizes(decode=32, trunk=512, warm=2000, alone=64, stream_out=32)


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str
    label: str
    unit: str
    # Of another figure: this one is read beside it, in the runs of the setting that is best for that one.
    beside: str = ""

    def record(self):
        """What a result's file says of it."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


# Repacking weights at load and flash attention each help on some machines, types and depths, and hurt on others.
def llama_grid(*args):
    return [
        Setting(
            " ".join((f"-fa {flash}", "plain build" if plain else "repack build", *args)),
            ("-fa", flash, *args),
            plain=plain,
        )
        for plain in (False, True)
        for flash in ("on", "off")
    ]


LLAMA_DEFAULT = Setting("defaults", in_turns=True)
# Keys and values in 8 bits are OpenVINO's default. Prompts go through it in pieces of 256 tokens unless told, and where
# the machine has VNNI its activations are quantised in groups of 32.
OPENVINO_GRID = [
    Setting(f"kv {kv}, batch {batch}", options=(("kv", kv), ("batch", batch)))
    for kv in ("u8", "f16")
    for batch in (256, 2048)
]
OPENVINO_GRID.append(
    Setting("kv f16, batch 2048, group 128", options=(("kv", "f16"), ("batch", 2048), ("group", 128)))
)
OURS_GRID = [Setting("defaults")]


def llama_at_once(count):
    """For `count` requests at once: a slot for each and one pool of keys and values for all, or as many slots as it
    sees fit."""
    fitted = Setting("-fa off, plain build", ("-fa", "off"), plain=True)
    return [LLAMA_DEFAULT, fitted, *llama_grid("-np", str(count), "-kvu")]


WITH_PEERS = (OURS, LLAMA, OPENVINO)
ALL_SIDES = (OURS, UNCACHED, LLAMA, OPENVINO)


class Workload:
    name = ""
    variants = ("",)
    sides = WITH_PEERS
    full, quick = FULL, QUICK
    ours = OURS_GRID

    def settings(self, side, variant):
        if side == LLAMA:
            return self.llama_settings(variant)
        return OPENVINO_GRID if side == OPENVINO else self.ours

    def prompts(self, server):
        return Prompts(server.tokenize(sample_text()))


def rounded(tokens):
    return -(-tokens // 256) * 256


# Where an idle slot of llama-server's is to keep what was copied to it.
def slot_args(folder):
    return ("--slot-save-path", folder, "--no-cache-idle-slots")


def copy_to_slots(server, shared, count):
    """What each slot of llama-server's would compute for itself is copied to it, by its own save and restore."""
    server.complete(shared, 1, id_slot=0)
    server.post("/slots/0?action=save", {"filename": "trunk"}).read()
    for slot in range(1, count):
        server.post(f"/slots/{slot}?action=restore", {"filename": "trunk"}).read()
