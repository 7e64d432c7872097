#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Real images: each becomes every format and back with the same bytes, judged by readers that are not ours
load helpers

# around FILE TARGET...: each target is "FORMAT OPTION..."
around() {
        local file=$1 name target format
        shift
        case $(dirname "$file") in
        */*) corpus_directory "$(dirname "$file")"; name=${file##*/}; name=${name%.xz}; name=${name%.bz2}; name=${name%.gz} ;;
        *) name=$(corpus "$file") ;;
        esac
        vdtool convert -O raw "$name" want.raw || return 1
        for target in "$@"; do
                format=${target%% *}
                # shellcheck disable=SC2086
                vdtool convert -q -O $target "$name" out || say "$file to $target" || return 1
                case $format in
                raw) cmp want.raw out || return 1 ;;
                vhd)
                        7zz t -tvhd out >/dev/null || say "7zz: $file to $target" || return 1
                        vhdiinfo out >/dev/null || say "vhdiinfo: $file to $target" || return 1
                        qemu-img compare -q -f vpc -F raw out want.raw || say "qemu-img: $file to $target" || return 1
                        ;;
                qcow2)
                        qemu-img check -q out || say "qemu-img check: $file to $target" || return 1
                        qemu-img compare -q -F raw out want.raw || say "qemu-img: $file to $target" || return 1
                        7zz t -tqcow out >/dev/null || say "7zz: $file to $target" || return 1
                        ;;
                esac
                if [ "$format" != raw ]; then
                        vdtool check -q -f "$format" out || say "check: $file to $target" || return 1
                        vdtool convert -q -f "$format" -O raw out back.raw || say "$file to $target and back" || return 1
                        cmp want.raw back.raw || say "$file to $target and back" || return 1
                fi
                rm -f out back.raw
        done
        find . -mindepth 1 -delete
}

# A qcow2 target takes its codec from a qcow2 source, and 7-Zip reads only zlib.
TARGETS=("raw" "vhd --type fixed" "vhd --type dynamic" "qcow2 -o compression_type=zlib"
        "qcow2 -c -o compression_type=zlib" "qcow2 -o compat=0.10")

all_of() {
        requires corpus
        local file
        for file in $(corpus_known vhd qcow2 raw | grep -E "$1" | grep -vE "luks|aes|chain-vdi${2:+|$2}"); do
                around "$file" "${TARGETS[@]}" || return 1
        done
}

@test "VHDs of many makers, to every form of every format and back" {
        all_of '^vhd/[^/]*$'
}

@test "differencing VHDs, to every form of every format and back" {
        all_of '^vhd/[^/]*/'
}

@test "VHDs by qemu-img and bximage, to every form of every format and back" {
        all_of '^(qemu72/vpc|othertools/)'
}

@test "small qcow2 images of many makers, to every form of every format and back" {
        all_of '^qcow/' 'vsstest|vasi|valentin|cdi-fs|scalibr'
}

@test "large qcow2 images of many makers, to every form of every format and back" {
        all_of '^qcow/(vsstest|vasi|valentin|cdi-fs|scalibr)'
}

@test "qcow2 images with every feature, to every form of every format and back" {
        all_of '^qemu72/qcow2'
}

@test "qcow2 chains and raw disks, to every form of every format and back" {
        all_of '^(qemu72/chain|sources/)'
}
