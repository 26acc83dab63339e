# shellcheck shell=bash
# What the scripts share. Sourced, after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Everything costly to make a second time (images, a registry's data) lives here and is keyed by its inputs.
# shellcheck disable=SC2034 # used by those who source this
cache=${BANGER_TEST_CACHE:-$root/.cache}

say() { printf '%s\n' "$*" >&2; }

die() {
	say "${0##*/}: $1"
	shift
	for line in "$@"; do say "hint: $line"; done
	exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

# can_be_root: root already, or sudo answers without a question.
can_be_root() { is_root || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; }

# as_root COMMAND...: runs COMMAND as root; call it only where can_be_root holds.
as_root() {
	if is_root; then "$@"; else sudo -n "$@"; fi
}

# key FILE...: one short hash over what the files hold.
key() { cat "$@" | sha256sum | cut -c1-16; }

# need TOOL...: the tools must be there, sbin included, which a plain user's PATH lacks on Debian.
PATH=$PATH:/usr/sbin:/sbin
need() {
	local tool
	for tool in "$@"; do
		command -v "$tool" >/dev/null || die "$tool is missing" "run scripts/install-deps"
	done
}

# end_daemon PROGRAM: the daemon that PROGRAM has started, where one runs. Its folder is about to go.
end_daemon() { "$1" daemon stop || true; }
