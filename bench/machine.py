"""Facts about the machine and about what is measured on it."""

import hashlib
import os
import pathlib
import platform
import subprocess

ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "asimddp", "i8mm")


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout.splitlines() or [""])[0].strip()


def cpu_facts():
    name, flags, family = platform.processor() or platform.machine(), "", {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = value
        elif key in ("cpu family", "model"):
            family[key] = value
    # Virtual machines hide the name, not the family.
    if family:
        name += f", family {family.get('cpu family')} model {family.get('model')}"
    return name, [flag for flag in ISA if flag in flags.split()]


def facts(tools):
    """What a result depends on. Equal facts: results may be continued and merged."""
    name, isa = cpu_facts()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "isa": isa,
        "memory_gib": round(memory, 1),
        "kernel": platform.release(),
        "compiler": first_line("c++", "--version"),
        "threads": tools.threads,
        "commit": first_line("git", "describe", "--always", "--dirty", "--abbrev=12"),
        "trellis": hashlib.sha256(tools.trellis.read_bytes()).hexdigest()[:12],
        "llama.cpp": os.path.basename(os.path.realpath(tools.llama / "source")),
        "openvino": tools.openvino_version(),
    }


def name_of(facts):
    """One line that tells machines apart; results of one line belong together."""
    return f"{facts['cpu']} ({', '.join(facts['isa']) or 'baseline'}), {facts['threads']} threads"
