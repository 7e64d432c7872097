#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Promise 1: cut an image anywhere, and convert fails with a message or the content is right
load helpers

# cut_everywhere FIXTURE CUTS [EXTRA POSITION...]: cuts at CUTS places spread over the file, and at the extra ones
cut_everywhere() {
        local name=$1 cuts=$2 size want at failed=0
        shift 2
        fixture "$name" whole >/dev/null
        size=$(size_of whole)
        want=$(fixture_fact "$name" 4)
        for at in $(seq 0 $((size / cuts + 1)) $((size - 1))) 1 511 512 513 $((size - 1)) $((size - 511)) $((size - 512)) $((size - 513)) "$@"; do
                head -c "$at" whole >"$name"
                rm -f out.raw
                capture vdtool convert -f "${FORMAT:-qcow2}" -O raw "$name" out.raw
                no_sanitizer || return 1
                if [ "$status" -eq 0 ]; then
                        same "$(sha256 out.raw)" "$want" || say "$name cut at $at" || return 1
                else
                        failed=$((failed + 1))
                        same "$status $(error_lines)" '1 1' || say "$name cut at $at" || told || return 1
                        [ ! -e out.raw ] || say "$name cut at $at left a file" || return 1
                fi
        done
        rm -f "$name" whole
        [ $failed -gt 0 ] || say "no cut of $name was noticed"
}

@test "qcow2 version 2, cut at 40 places" {
        cut_everywhere good-qcow2-v2 40
}

@test "qcow2 version 3, cut at 40 places" {
        cut_everywhere good-qcow2-v3 40
}

@test "qcow2 with 512-byte clusters, cut at 60 places" {
        cut_everywhere good-qcow2-cluster-512 60
}

@test "qcow2 with deflate units, cut at 40 places" {
        cut_everywhere good-qcow2-zlib 40
}

@test "qcow2 with zstd units, cut at 40 places" {
        cut_everywhere good-qcow2-zstd 40
}

@test "qcow2 with extended L2 entries, cut at 40 places" {
        cut_everywhere good-qcow2-extended-l2 40
}

@test "qcow2 with snapshots and zero clusters, cut at 30 places" {
        cut_everywhere good-qcow2-snapshots 30
        cut_everywhere good-qcow2-zero-clusters 30
}

@test "the data file of a qcow2, cut at 20 places" {
        local at size failed=0
        fixture good-qcow2-data-file
        fixture good-raw-data-file whole
        size=$(size_of whole)
        for at in $(seq 0 $((size / 20)) $((size - 1))); do
                head -c "$at" whole >good-raw-data-file
                rm -f out.raw
                capture vdtool convert -O raw good-qcow2-data-file out.raw
                if [ "$status" -eq 0 ]; then
                        same "$(sha256 out.raw)" "$(fixture_fact good-qcow2-data-file 4)" || say "cut at $at" || return 1
                else
                        failed=$((failed + 1))
                fi
        done
        [ $failed -gt 10 ]
}

@test "dynamic VHD, cut at 40 places" {
        FORMAT=vhd cut_everywhere good-vhd-dynamic 40 1536 2048
}

@test "fixed VHD, cut at 20 places" {
        FORMAT=vhd cut_everywhere good-vhd-fixed 20
}

@test "a fixed VHD that lost its footer is not taken for a raw disk" {
        fixture good-vhd-fixed whole >/dev/null
        local extension cut
        for extension in vhd vpc avhd vhdf; do
                for cut in 2 512 513; do
                        head -c -$cut whole >cut.$extension
                        fails_cleanly vdtool convert cut.$extension out.raw
                done
        done
        [ ! -e out.raw ]
}

@test "VHD with its table behind the blocks, cut at 40 places" {
        FORMAT=vhd cut_everywhere good-vhd-odd-layout 40
}

@test "differencing VHD and its parent, cut at 30 places each" {
        fixture good-vhd-parent
        FORMAT=vhd cut_everywhere good-vhd-child 30
        local at size failed=0
        fixture good-vhd-child
        mv good-vhd-parent whole
        size=$(size_of whole)
        for at in $(seq 0 $((size / 30)) $((size - 1))); do
                head -c "$at" whole >good-vhd-parent
                rm -f out.raw
                capture vdtool convert -O raw good-vhd-child out.raw
                if [ "$status" -eq 0 ]; then
                        same "$(sha256 out.raw)" "$(fixture_fact good-vhd-child 4)" || say "parent cut at $at" || return 1
                else
                        failed=$((failed + 1))
                fi
        done
        [ $failed -gt 10 ]
}

@test "a base of a chain that was cut is an error or reads as a shorter base" {
        # a raw base may be of any length: it then ends in zeros, as qemu-img reads it
        fixture good-raw-chain-base whole
        fixture good-qcow2-chain-middle chain-middle.qcow2
        local at
        for at in 0 512 100000 1000000 3000000; do
                head -c $at whole >chain-base.raw
                vdtool convert -O raw chain-middle.qcow2 out.raw
                same "$(content_qemu qcow2 chain-middle.qcow2)" "$(sha256 out.raw)"
                rm out.raw
        done
}

@test "check of an image that was cut never says that all is well, unless it reads right" {
        local name size at
        for name in good-qcow2-v3 good-qcow2-zlib good-vhd-dynamic; do
                fixture $name whole >/dev/null
                size=$(size_of whole)
                for at in $(seq 0 $((size / 25)) $((size - 1))); do
                        head -c "$at" whole >part
                        capture vdtool check --data -f "$(cut -d- -f2 <<<$name)" part
                        no_sanitizer
                        if [ "$status" -eq 0 ]; then
                                same "$(content -f "$(cut -d- -f2 <<<$name)" part)" "$(fixture_fact $name 4)" || say "$name cut at $at"
                        fi
                done
        done
}
