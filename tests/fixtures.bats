#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# Every image of tests/images does what its row in the README says.
load helpers

names() { awk -F' *[|] *' -v p="$1" '$2 ~ p { print $2 }' "$IMAGES/README.md"; }

# The name a fixture has for the images that refer to it.
unpack_all() {
        local name
        for name in $(names '^(good|bad|unsupported)-'); do
                fixture "$name" >/dev/null
        done
        ln -s good-raw-chain-base chain-base.raw
        ln -s good-qcow2-chain-middle chain-middle.qcow2
        ln -s good-vdi-parent parent.vdi
}

# Fixtures of a format read as README.md says.
read_as_said() {
        local name sha count=0
        unpack_all
        for name in $(names "^good-$1-"); do
                sha=$(content "$name") || say "$name cannot be read" || return 1
                same "$sha" "$(fixture_fact "$name" 4)" || say "in $name" || return 1
                count=$((count + 1))
        done
        [ "$count" -ge "$2" ] || say "only $count fixtures of $1"
}

@test "every fixture has a row in README.md and every row a fixture" {
        diff <(names '^(good|bad|unsupported)-' | sort) <(cd "$IMAGES" && printf '%s\n' *.xz | sed 's/\.xz$//' | sort)
}

@test "all fixtures together stay below 300 KiB" {
        [ "$(cat "$IMAGES"/*.xz | wc -c)" -lt 307200 ]
}

@test "good raw fixtures read as their checksums say" {
        read_as_said raw 2
}

@test "good vhd fixtures read as their checksums say" {
        read_as_said vhd 11
}

@test "good qcow2 fixtures read as their checksums say" {
        read_as_said qcow2 21
}

@test "good vdi, qcow, qed and parallels fixtures read as their checksums say" {
        read_as_said vdi 4
        rm -f ./*
        read_as_said qcow 3
        rm -f ./*
        read_as_said qed 3
        rm -f ./*
        read_as_said parallels 2
}

@test "good fixtures are recognised as what they are without -f" {
        local name format
        unpack_all
        for name in $(names '^good-'); do
                format=${name#good-}
                same "$(vdtool info --field format "$name")" "$(qemu_name "${format%%-*}")" || say "$name" || return 1
        done
}

@test "good fixtures pass check, except the one whose writer was killed" {
        local name want
        unpack_all
        for name in $(names '^good-(vhd|qcow2|vdi|qcow|qed|parallels)-'); do
                want=0
                case $name in
                good-qcow2-dirty | good-vhd-end-footer-gone | good-vhd-front-footer-damaged) want=2 ;;
                good-vhd-fixed-511) continue ;;
                esac
                capture vdtool check "$name"
                same "$status" "$want" || say "check $name" || told || return 1
        done
}

@test "bad fixtures are refused with one line, and nothing is left behind" {
        local name fact count=0
        unpack_all
        for name in $(names '^bad-'); do
                fact=$(fixture_fact "$name" 4)
                [[ ! $fact =~ ^[0-9a-f]{64}$ ]] || continue
                if [ "$fact" = - ]; then
                        fails_cleanly vdtool convert -O raw "$name" result || return 1
                else
                        fails_with "$fact" vdtool convert -O raw "$name" result || return 1
                fi
                [ ! -e result ] || say "$name left a result" || return 1
                count=$((count + 1))
        done
        only_files chain-base.raw chain-middle.qcow2 parent.vdi $(names '^(good|bad|unsupported)-')
        [ "$count" -ge 40 ]
}

@test "the message for a bad fixture begins with the name of the image" {
        local name
        unpack_all
        for name in $(names '^bad-'); do
                [[ ! $(fixture_fact "$name" 4) =~ ^[0-9a-f]{64}$ ]] || continue
                capture vdtool convert -O raw "$name" result
                [[ $stderr == *"vdtool: $name: "* ]] || say "$name" || told || return 1
        done
}

@test "bad fixtures that only check minds read as their checksums say, and check minds" {
        local name sha count=0
        unpack_all
        for name in $(names '^bad-'); do
                [[ $(fixture_fact "$name" 4) =~ ^[0-9a-f]{64}$ ]] || continue
                sha=$(content "$name") || return 1
                same "$sha" "$(fixture_fact "$name" 4)" || say "in $name" || return 1
                capture vdtool check "$name"
                [[ $status == [23] ]] || say "check $name" || told || return 1
                count=$((count + 1))
        done
        [ "$count" -ge 5 ]
}

@test "unsupported fixtures are refused by name" {
        unpack_all
        fails_with 'version 4' vdtool convert -O raw unsupported-qcow2-version-4 result
        fails_with 'bit 62' vdtool convert -O raw unsupported-qcow2-feature result
        fails_with 'time travel' vdtool convert -O raw unsupported-qcow2-named-feature result
        fails_with 'AES' vdtool convert -O raw unsupported-qcow2-aes result
        fails_with 'LUKS' vdtool convert -O raw unsupported-qcow2-luks result
        fails_with 'version 2.0' vdtool convert -O raw unsupported-vdi-version-2 result
        fails_with 'AES' vdtool convert -O raw unsupported-qcow-aes result
        fails_with 'unknown features 0x100' vdtool convert -O raw unsupported-qed-feature result
        fails_with 'version 3' vdtool convert -O raw unsupported-parallels-version-3 result
        [ ! -e result ]
}

@test "no command crashes or hangs on any fixture" {
        local name
        unpack_all
        for name in $(names '^(good|bad|unsupported)-'); do
                survives vdtool info "$name" || say "info $name" || return 1
                survives vdtool info --output json --backing-chain "$name" || say "info --backing-chain $name" || return 1
                survives vdtool map --output json "$name" || say "map $name" || return 1
                survives vdtool check --data "$name" || say "check $name" || return 1
                survives vdtool compare "$name" good-raw-chain-base || say "compare $name" || return 1
        done
}

@test "each good fixture becomes every format and back without a changed byte" {
        local name format
        unpack_all
        for name in $(names '^good-(vhd|qcow2|vdi|qcow|qed|parallels)-' | grep -v os-disk); do
                vdtool convert -O raw "$name" want.raw
                for format in vhd qcow2; do
                        vdtool convert -O "$format" "$name" "copy.$format" || say "$name to $format" || return 1
                        vdtool convert -O raw "copy.$format" back.raw || say "$name to $format and back" || return 1
                        cmp want.raw back.raw || say "$name via $format" || return 1
                        rm "copy.$format" back.raw
                done
                rm want.raw
        done
}
