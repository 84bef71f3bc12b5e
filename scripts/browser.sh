#!/usr/bin/env bash
# A headless browser for the tests that open the pages of a diagnosis as a reader would.
#
#   scripts/browser.sh install   install the Debian/Ubuntu package chromium if no browser is there, and say which packages
#                                came with it; `make test BROWSER=1` does it
#   scripts/browser.sh path      print which browser the tests take
#
# Any of chromium, chromium-browser and google-chrome in PATH will do, if it starts. Ubuntu's own chromium is a snap,
# which runs in few containers: bring google-chrome there. Installing needs root and apt-get; no service is started.
# Exit status 77 and one line "skipped: ..." if it cannot be done here, 2 for wrong usage.

set -euo pipefail

help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; }
skip() { echo "skipped: $*" >&2; exit 77; }
packages() { dpkg-query --show --showformat='${Package}\n' | sort; }
new() { comm -13 <(echo "$1") <("$2"); }  # BEFORE COMMAND: the lines of its output that are not in BEFORE
works() { timeout 60 "$1" --version >/dev/null 2>&1; }  # a snap's stand-in is in PATH and does not

browser() {  # print the first that runs
  local name
  for name in chromium chromium-browser google-chrome; do
    name=$(type -P "$name") && works "$name" && echo "$name" && return
  done
  return 1
}

install_browser() {
  browser >/dev/null && return
  [[ $EUID == 0 ]] || skip "no chromium here, and installing it needs root"
  type -P apt-get >/dev/null || skip "no chromium here, and no apt-get to install it"
  local out before
  exec 9<"$0"
  flock 9  # another instance may be installing right now
  browser >/dev/null && return
  before=$(packages)
  out=$({ apt-get -qq update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 SYSTEMD_OFFLINE=1 apt-get -qq install -y \
            --no-install-recommends -o DPkg::Lock::Timeout=300 chromium
        } 2>&1 </dev/null 9<&-) || skip "chromium could not be installed: ${out##*$'\n'}"
  echo "installed for the browser: $(new "$before" packages | xargs)"
  browser >/dev/null || skip "chromium is installed, but it does not start"
}

case $#${1-} in
  1install) install_browser ;;
  1path) browser || skip "no chromium here: \`scripts/browser.sh install\` brings it, or \`make test BROWSER=1\`" ;;
  1-h | 1--help) help ;;
  *) help >&2; exit 2 ;;
esac
