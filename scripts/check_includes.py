#!/usr/bin/env python3
"""Checks the direction of dependency between the folders of src/.

ALLOWED below is the law. A folder's CMakeLists.txt may declare no more than that, and its files may include only
folders that are declared there (base and os anywhere, if linked somehow). What is declared must be used.
"""

import pathlib
import re
import sys

ALLOWED = {
    "base": "",
    "os": "base",
    "kernels": "base",
    "tier": "os base",
    "kv": "tier base",
    "replay": "kv os base",
    "model": "kernels os base",
    "sample": "base",
    "text": "sample base",
    "sched": "kv base",
    "engine": "sched model sample kv",
    "api": "text base",
    "server": "api engine model text",
    "hub": "os base",
}
ANYWHERE = {"base", "os"}
# Other people's headers that stop at a border: requests in JSON never pass api (replay reads files of it, hub a hub's
# answers), llama.cpp never passes these three.
BORDERS = {
    r"nlohmann/": {"api", "server", "replay", "hub"},
    r"(curl|openssl)/": {"hub"},
    r"(llama|ggml|gguf|chat|common|llama-[\w-]+|ggml-[\w-]+)\.h$": {"text", "sample", "model"},
    r"boost/": {"server"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.M)


def declared_deps(folder):
    text = re.sub(r"#.*", "", (folder / "CMakeLists.txt").read_text())
    call = re.search(r"trellis_module\(\s*(\w+)([^)]*)\)", text)
    if not call or call[1] != folder.name:
        return None
    deps = re.search(r"\bDEPS\b(.*?)(?=\b[A-Z]{4,}\b|$)", call[2], re.S)
    return set(deps[1].split()) if deps else set()


def check(folder):
    name = folder.name
    if name not in ALLOWED:
        yield f"src/{name}: no such folder in the design; add it to ALLOWED in this script"
        return
    allowed, deps = set(ALLOWED[name].split()) | ANYWHERE, declared_deps(folder)
    if deps is None:
        yield f"src/{name}/CMakeLists.txt: has no trellis_module({name} ...)"
        return
    for dep in sorted(deps - allowed):
        yield f"src/{name}/CMakeLists.txt: DEPS {dep} is against the direction of dependency"
    used = set()
    for path in sorted([*folder.rglob("*.h"), *folder.rglob("*.cc")]):
        for include in INCLUDE.findall(path.read_text()):
            top = include.split("/")[0]
            if "/" in include and top in ALLOWED:
                used.add(top)
                if top != name and top not in deps | ANYWHERE:
                    yield f"{path}: includes {include}, but {top} is not in its DEPS"
            for pattern, folders in BORDERS.items():
                if re.match(pattern, include) and name not in folders:
                    yield f"{path}: includes {include}, which stays in {', '.join(sorted(folders))}"
    for dep in sorted(deps - used - ANYWHERE):
        yield f"src/{name}/CMakeLists.txt: DEPS {dep} is declared but never included"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    folders = sorted(p for p in root.iterdir() if (p / "CMakeLists.txt").exists())
    problems = [line for folder in folders for line in check(folder)]
    print("\n".join(problems) or f"includes: {len(folders)} folders keep their direction")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
