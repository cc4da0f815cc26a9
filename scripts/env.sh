# Sourced by the other scripts: where things are kept, how to speak, how to build.
# shellcheck shell=bash disable=SC2034
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export TRELLIS_CACHE=${TRELLIS_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/trellis}
export TRELLIS_MODELS_DIR=${TRELLIS_MODELS_DIR:-$TRELLIS_CACHE/models}
# Relative to where the user is; from here on we are in the root.
for name in TRELLIS_CACHE TRELLIS_MODELS_DIR CCACHE_DIR LLAMA_SOURCE_DIR MODEL; do
  [ -z "${!name:-}" ] || export "$name=$(realpath -ms "${!name}")"
done
cd "$root"
mkdir -p "$TRELLIS_CACHE"

say() { echo "==> $*" >&2; }
die() { echo "trellis: $*" >&2; exit 1; }

# ccache, where it is installed, makes every build after the first one short, in any checkout.
launcher=()
if command -v ccache >/dev/null; then
  export CCACHE_DIR=${CCACHE_DIR:-$TRELLIS_CACHE/ccache} CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
  launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
fi

# One line of text -> a short key for the name of a cached build.
key_of() { sha256sum | cut -c1-12; }
