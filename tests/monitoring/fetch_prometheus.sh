#!/usr/bin/env bash
# Puts Debian's prometheus and promtool into a folder, without root and without installing anything: fetch_prometheus.sh FOLDER
set -euo pipefail
folder=${1:?usage: fetch_prometheus.sh FOLDER}
test -x "$folder/promtool" && exit 0
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { echo "fetch_prometheus.sh: needs a Debian system" >&2; exit 1; }

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
work=$(cd "$work" && pwd)
trap 'rm -rf "$work"' EXIT
# Lists of packages of our own: the system's may be absent, and only root may renew them.
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
apt() {
    apt-get -qq -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" "$@"
}
(cd "$work" && { apt-get -qq download prometheus 2>/dev/null || { apt update && apt download prometheus; }; })
dpkg-deb --fsys-tarfile "$work"/prometheus_*.deb | tar -x -C "$work" ./usr/bin/prometheus ./usr/bin/promtool
mv "$work/usr/bin/prometheus" "$work/usr/bin/promtool" "$folder/"
