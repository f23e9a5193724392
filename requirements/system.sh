#!/usr/bin/env bash
# Install system packages where they are missing: those that the wheels expect, or the ones named (`make test` names
# postgresql). Needs root for that, and says so.
set -euo pipefail
command -v dpkg >/dev/null || exit 0 # not Debian: these are yours to provide
(($# > 0)) || set -- libgomp1 libnuma1
missing=()
for package in "$@"; do
  dpkg --status "$package" >/dev/null 2>&1 || missing+=("$package")
done
((${#missing[@]} == 0)) && exit 0
if ((EUID != 0)); then
  echo "missing system packages: ${missing[*]}; install them with: sudo apt-get install ${missing[*]}" >&2
  exit 2
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
