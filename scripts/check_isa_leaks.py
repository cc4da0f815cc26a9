#!/usr/bin/env python3
"""check_isa_leaks.py LIBRARY: no function that other code may share is compiled for one instruction set.

An inline function or template of a vector translation unit that is not inlined there is a weak symbol; the linker keeps
one copy for the whole program, and a machine without that instruction set stops at it.
"""

import re
import subprocess
import sys

ISA = re.compile(r"_(avx2|avxvnni|avx512|amx|neon|neon_i8mm)\.cc\.o$")
OWN = re.compile(r"Simd(Avx2|Avx512|Neon)")  # templates over an instruction set's own types


def main(library):
    leaks, checked = [], 0
    listing = subprocess.run(["nm", "-C", "-A", library], check=True, capture_output=True, text=True).stdout
    for line in listing.splitlines():
        member, _, symbol = line.removeprefix(library + ":").partition(":")
        if not ISA.search(member):
            continue
        checked += 1
        match = re.search(r"\s[Wu]\s(.*)", symbol)
        if match and not OWN.search(match[1]):
            leaks.append(f"{member}: {match[1]}")
    if checked == 0:
        sys.exit(f"{library}: no translation unit of an instruction set in it")
    if leaks:
        sys.exit("compiled for one instruction set, and shared:\n  " + "\n  ".join(leaks))


main(sys.argv[1])
