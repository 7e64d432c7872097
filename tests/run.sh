#!/bin/bash
# SPDX-License-Identifier: MIT
# run.sh [NAME...]: runs the unit programs named in $UNITS and tests/*.bats (or only tests/NAME.bats), prints what
# failed, and ends with "N passed, N failed".  Exit status 0 only if nothing failed.
#
# $VDTOOL is the program under test; $JOBS the number of files that run side by side; with CI=true a test that was
# skipped counts as failed.
set -u
{       # read as a whole before it runs, so that editing it meanwhile does no harm

here=$(cd "$(dirname "$0")" && pwd)
jobs=${JOBS:-$(nproc)}
results=$(mktemp -d "${TMPDIR:-/tmp}/vdtool-tests.XXXXXX")
trap 'rm -rf "$results"' EXIT
export BATS_TMPDIR=$results
passed=0 failed=0

: "${VDTOOL:=$here/../vdtool}"
export VDTOOL
if ! [ -x "$VDTOOL" ]; then
        echo "$VDTOOL: no such program"
        exit 1
fi

files=()
if [ $# -gt 0 ]; then
        for name; do
                files+=("$here/${name%.bats}.bats")
        done
else
        files=("$here"/*.bats)
        for unit in ${UNITS:-}; do
                if "$unit" </dev/null >"$results/unit.out" 2>&1; then
                        passed=$((passed + 1))
                        echo "ok unit: $(basename "$unit")"
                else
                        failed=$((failed + 1))
                        echo "not ok unit: $(basename "$unit") (status $?)"
                        sed 's/^/# /' "$results/unit.out"
                fi
        done
fi

# The long ones first, so that none runs alone at the end.
run_file() {
        bats --tap "$1" </dev/null >"$results/$(basename "$1").tap" 2>&1
        echo $? >"$results/$(basename "$1").status"
        grep -v '^1\.\.' "$results/$(basename "$1").tap" | sed "s|^\(not \)\?ok [0-9]* |&$(basename "$1" .bats): |"
}
export -f run_file
export results
grep -c '' "${files[@]}" /dev/null | grep -v '^/dev/null:' | sort -t: -k2 -nr | sed 's/:[0-9]*$//' |
        while read -r file; do
                case $file in */corpus-* | */hostile*) echo "0 $file" ;; *) echo "1 $file" ;; esac
        done | sort -s -k1,1 | cut -d' ' -f2- |
        xargs -d '\n' -P "$jobs" -I{} bash -c 'run_file "$1" 2>&1' run {}

skipped=0
for file in "${files[@]}"; do
        name=$(basename "$file")
        tap=$results/$name.tap
        planned=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' "$tap" 2>/dev/null | head -n 1)
        skips=$(grep -c '^ok .* # skip' "$tap")
        good=$(($(grep -c '^ok ' "$tap") - skips))
        bad=$(grep -c '^not ok ' "$tap")
        # A file that ends before its plan is through has failed, whatever it said.
        if [ -z "$planned" ] || [ "$planned" -ne $((good + bad + skips)) ]; then
                echo "not ok $name ended early (status $(cat "$results/$name.status" 2>/dev/null))"
                bad=$((bad + 1))
        fi
        passed=$((passed + good))
        failed=$((failed + bad))
        skipped=$((skipped + skips))
done

if [ "$failed" -gt 0 ]; then
        echo
        echo "failed:"
        for file in "${files[@]}"; do
                sed -n "s|^not ok [0-9]* |  $(basename "$file" .bats): |p" "$results/$(basename "$file").tap"
        done
fi
if [ "$skipped" -gt 0 ]; then
        echo
        echo "$skipped skipped"
        [ "${CI:-}" != true ] || failed=$((failed + skipped))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
exit
}
