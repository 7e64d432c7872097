#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# vdtool check: exit status as qemu-img's, findings as records
load helpers

# check_says STATUS FILE [OPTION...]: exit status of the check; JSON of it in check.json
check_says() {
        local want=$1 file=$2
        shift 2
        capture vdtool check "$@" --output json "$file"
        no_sanitizer || return 1
        same "$status" "$want" || told || return 1
        printf '%s' "$output" >check.json
        jq -e --arg f "$file" '.filename == $f' check.json >/dev/null
}
codes() { jq -r '.findings[].code' check.json | sort -u; }

@test "a clean image is status 0 and the line that scripts look for" {
        fixture good-qcow2-v3
        succeeds vdtool check good-qcow2-v3
        [[ $output == *'No errors were found on the image.'* ]] || told
        fixture good-vhd-dynamic
        succeeds vdtool check good-vhd-dynamic
        [[ $output == *'No errors were found on the image.'* ]] || told
}

@test "the numbers of a clean qcow2 are qemu-img's" {
        local name
        for name in v2 v3 zlib zstd cluster-512 cluster-2m refcount-1 preallocated snapshots bitmaps extended-l2; do
                fixture good-qcow2-$name
                check_says 0 good-qcow2-$name
                qemu-img check --output=json good-qcow2-$name >theirs.json
                same "$(jq -c -S '{"check-errors", "total-clusters", "allocated-clusters", "compressed-clusters", "image-end-offset"}' check.json)" \
                        "$(jq -c -S '{"check-errors", "total-clusters", "allocated-clusters", "compressed-clusters", "image-end-offset"}' theirs.json)" ||
                        say "$name"
        done
}

@test "leaks alone are status 3" {
        fixture bad-qcow2-leak
        check_says 3 bad-qcow2-leak
        jq -e '.leaks == 1 and (.corruptions // 0) == 0' check.json
        fixture bad-qcow2-count-high
        check_says 3 bad-qcow2-count-high || check_says 2 bad-qcow2-count-high
        capture vdtool check bad-qcow2-leak
        [[ $output$stderr == *'1 leaked clusters were found on the image.'* ]] || told
}

@test "a count that is too low is corruption, status 2" {
        fixture bad-qcow2-count-low
        check_says 2 bad-qcow2-count-low
        jq -e '.corruptions >= 1' check.json
        capture vdtool check bad-qcow2-count-low
        [[ $output == *'errors were found on the image.'* ]] || told
}

@test "a cluster that two guest places share without counting twice is corruption" {
        fixture bad-qcow2-shared-data
        check_says 2 bad-qcow2-shared-data
}

@test "guest data on top of a refcount block is corruption, never only a wrong count" {
        fixture bad-qcow2-data-on-counts
        check_says 2 bad-qcow2-data-on-counts
        codes | grep -q overlap
}

@test "guest data on top of an L2 or L1 table is corruption" {
        fixture good-qcow2-v3 disk.qcow2
        local l1 l2
        l1=$(peek_number disk.qcow2 40 8)
        l2=$(($(peek_number disk.qcow2 "$l1" 8) & 0xfffffffffffe00))
        poke disk.qcow2 $((l2 + 8)) "$(printf '%016x' $((l2 | 1 << 63)))"
        check_says 2 disk.qcow2
        codes | grep -q overlap
        poke disk.qcow2 $((l2 + 8)) "$(printf '%016x' $((l1 | 1 << 63)))"
        check_says 2 disk.qcow2
        codes | grep -q overlap
}

@test "entries past the end of the file are corruption, and say where" {
        fixture bad-qcow2-data-past-end
        check_says 2 bad-qcow2-data-past-end
        jq -e 'any(.findings[]; .guest == 0 or ."guest-offset" == 0)' check.json
        fixture bad-qcow2-l2-past-end
        check_says 2 bad-qcow2-l2-past-end
        fixture bad-vhd-block-past-end
        check_says 2 bad-vhd-block-past-end
        fixture bad-qcow2-truncated
        check_says 2 bad-qcow2-truncated
        fixture bad-vhd-truncated
        capture vdtool check bad-vhd-truncated
        [[ $status == [12] ]] || told
}

@test "entries that are not aligned are corruption" {
        fixture bad-qcow2-data-unaligned
        check_says 2 bad-qcow2-data-unaligned
        fixture bad-qcow2-l2-unaligned
        check_says 2 bad-qcow2-l2-unaligned
}

@test "VHD blocks that overlap each other or the metadata are corruption" {
        fixture bad-vhd-blocks-overlap
        check_says 2 bad-vhd-blocks-overlap
        codes | grep -q overlap
        fixture bad-vhd-block-on-header
        check_says 2 bad-vhd-block-on-header
}

@test "a damaged footer is an error that check reports although the image reads" {
        fixture good-vhd-end-footer-gone
        check_says 2 good-vhd-end-footer-gone
        codes | grep -q footer
        fixture good-vhd-front-footer-damaged
        check_says 2 good-vhd-front-footer-damaged
        codes | grep -q footer
}

@test "footers that differ are reported" {
        fixture good-vhd-dynamic disk.vhd
        source "$IMAGES/vhd.bash"
        poke disk.vhd $(($(size_of disk.vhd) - 512 + 24)) 00000001
        vhd_reseal disk.vhd
        capture vdtool check --output json disk.vhd
        jq -e '.findings | length > 0' <<<"$output"
}

@test "a dirty qcow2 is reported, with its stale counts" {
        fixture good-qcow2-dirty
        check_says 2 good-qcow2-dirty
        qemu-img check --output=json good-qcow2-dirty >theirs.json || true
        jq -e '.corruptions > 0' check.json
}

@test "an image that cannot be opened is status 1" {
        fixture bad-qcow2-cluster-bits-22
        fails_cleanly vdtool check bad-qcow2-cluster-bits-22
        same "$status" 1
        fails_cleanly vdtool check nowhere
        same "$status" 1
}

@test "raw disks are checked too: for whole sectors, and with --data for being readable" {
        truncate -s 1000 disk.raw
        capture vdtool check --output json -f raw disk.raw
        same "$status" 0
        same "$(jq -r '.findings[].code' <<<"$output")" raw-length
        truncate -s 1024 disk.raw
        capture vdtool check --data --output json -f raw disk.raw
        same "$status" 0
        same "$(jq -r '.findings | length' <<<"$output")" 0
}

@test "--data reads and unpacks everything" {
        fixture bad-qcow2-packed-garbage
        check_says 0 bad-qcow2-packed-garbage
        check_says 2 bad-qcow2-packed-garbage --data
        fixture good-qcow2-zstd
        check_says 0 good-qcow2-zstd --data
        fixture good-vhd-dynamic
        check_says 0 good-vhd-dynamic --data
}

@test "check changes nothing and opens no reference" {
        fixture bad-qcow2-count-low
        fixture good-qcow2-dirty
        fixture bad-qcow2-backing-missing
        sha256sum * >"$BATS_TEST_TMPDIR/sums"
        vdtool check bad-qcow2-count-low || true
        vdtool check --data good-qcow2-dirty || true
        capture vdtool check bad-qcow2-backing-missing
        same "$status" 0
        sha256sum -c --quiet "$BATS_TEST_TMPDIR/sums"
}

@test "-r says that it cannot, or repairs; it never claims what is not so" {
        fixture bad-qcow2-count-low
        capture vdtool check -r all bad-qcow2-count-low
        if [ "$status" -eq 0 ]; then
                qemu-img check -q bad-qcow2-count-low
        else
                [[ $stderr == *repair* ]] || told
        fi
}

@test "findings are records with code, severity and text" {
        fixture bad-vhd-block-past-end
        check_says 2 bad-vhd-block-past-end
        jq -e '.findings | length > 0 and all(has("code") and has("severity"))' check.json
}

@test "every code that a check can report is described in docs/findings.md" {
        local name code
        for name in "$IMAGES"/bad-*.xz; do
                name=$(basename "$name" .xz)
                fixture "$name" >/dev/null
                capture vdtool check --output json "$name"
                [[ $status == [23] ]] || continue
                jq -r '.findings[].code' <<<"$output"
        done | sort -u >codes
        [ "$(wc -l <codes)" -ge 5 ]
        while read -r code; do
                grep -q "\`$code\`" "$ROOT/docs/findings.md" || say "$code is not described"
        done <codes
}

@test "check of what we write finds nothing, whatever the options" {
        local options
        disk_image disk.raw
        for options in cluster_size=512 cluster_size=2M compat=0.10 refcount_bits=1 refcount_bits=64 extended_l2=on preallocation=metadata; do
                vdtool convert -f raw -O qcow2 -o $options disk.raw disk.qcow2
                check_says 0 disk.qcow2
                rm disk.qcow2
        done
        for options in subformat=dynamic subformat=fixed block_size=512k chs=compat; do
                vdtool convert -f raw -O vhd -o $options disk.raw disk.vhd
                check_says 0 disk.vhd
                rm disk.vhd
        done
}

@test "check agrees with qemu-img about every qcow2 fixture that qemu-img can judge" {
        local name theirs
        for name in "$IMAGES"/{good,bad}-qcow2-*.xz; do
                name=$(basename "$name" .xz)
                case $name in
                # we are stricter: qemu-img raises the count, or does not look
                # or do not open it at all, which is status 1
                *l1-past-end | *data-on-counts | *packed-* | *backing-* | *chain-* | *data-file* | *header-only) continue ;;
                esac
                fixture "$name" >/dev/null
                theirs=0
                qemu-img check -q "$name" >/dev/null 2>&1 || theirs=$?
                capture vdtool check -q "$name"
                same "$name: $status" "$name: $theirs" || told || return 1
        done
}
