# shellcheck shell=bash
# Functions that the scripts share. A script sources this file after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The cache has files that are slow to make (images, a registry's data), keyed by their inputs.
# shellcheck disable=SC2034 # the scripts use it
cache=${BANGER_TEST_CACHE:-$root/.cache}

say() { printf '%s\n' "$*" >&2; }

die() {
	say "${0##*/}: $1"
	shift
	for line in "$@"; do say "hint: $line"; done
	exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# can_be_root: succeeds if this user is root, or sudo asks no question.
can_be_root() { is_root || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# as_root COMMAND...: runs COMMAND as root. Call it only if can_be_root succeeds.
as_root() {
	if is_root; then "$@"; else sudo -n "$@"; fi
}

# key FILE...: prints a short hash of the files' content.
key() { cat "$@" | sha256sum | cut -c1-16; }

# need TOOL...: fails if a tool is missing. It looks in sbin too, which a plain user's PATH lacks on Debian.
PATH=$PATH:/usr/sbin:/sbin
need() {
	local tool
	for tool in "$@"; do
		command -v "$tool" >/dev/null || die "$tool is missing" "run scripts/install-deps"
	done
}

# end_daemon PROGRAM: ends the daemon that PROGRAM has started, if there is one.
end_daemon() { "$1" daemon stop || true; }
