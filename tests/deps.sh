#!/bin/bash
# SPDX-License-Identifier: MIT
# deps.sh PACKAGE... -- OPTIONAL...: installs the Debian packages that are not installed yet, with apt-get.
# Packages after "--" are left out where the distribution does not have them.
set -eu

missing() {
        local package
        for package; do
                [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
        done
}

wanted=() optional=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
        wanted+=("$1")
        shift
done
[ $# -eq 0 ] || shift
optional=("$@")

mapfile -t need < <(missing "${wanted[@]}")
mapfile -t maybe < <(missing "${optional[@]}")
if [ ${#need[@]} -eq 0 ] && [ ${#maybe[@]} -eq 0 ]; then
        echo "all packages are installed"
        exit 0
fi

as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null; }

# Lists that are absent or older than a day name files that the mirrors no longer have.
if [ -z "$(find /var/lib/apt/lists -name '*Packages*' -mtime -1 2>/dev/null | head -n 1)" ]; then
        apt update
fi
for package in "${maybe[@]}"; do
        if [ -n "$(apt-cache policy "$package" 2>/dev/null | sed -n '/Candidate: [^(]/p')" ]; then
                need+=("$package")
        else
                echo "$package: not in this distribution, left out"
        fi
done
[ ${#need[@]} -eq 0 ] || apt install -y --no-install-recommends "${need[@]}"
