#!/usr/bin/env bats
# SPDX-License-Identifier: MIT
# DMG: every kind of chunk, both places of the tables, checksums, damage
load helpers
# shellcheck source=tests/images/dmg.bash
source "$BATS_TEST_DIRNAME/images/dmg.bash"

# The material: text (64 sectors), noise (8), adc (16), lzvn (1), stored (1).
setup_files() {
        seq 1 20000 | head -c 32768 >text
        openssl enc -aes-128-ctr -K 0f -iv 00 -in /dev/zero 2>/dev/null | head -c 4096 >noise
        adc_file adc
        lzvn_file lzvn
        stored_file stored
}

# Two tables, every kind of chunk but stored LZFSE blocks, which 7-Zip cannot read.
every_kind() {
        dmg_new
        dmg_chunk 80000005 64 text
        dmg_table
        dmg_chunk 00000001 8 noise
        dmg_chunk 00000000 100
        dmg_chunk 80000004 16 adc
        dmg_chunk 80000006 64 text
        dmg_chunk 80000008 64 text
        dmg_chunk 00000002 7
        dmg_chunk 80000007 1 lzvn
        dmg_table
}

# What qemu-img knows, too.
simple() {
        dmg_new
        dmg_chunk 80000005 64 text
        dmg_chunk 00000000 9
        dmg_table
        dmg_chunk 00000001 8 noise
        dmg_chunk 00000002 7
        dmg_table
}

@test "every kind of chunk, as 7-Zip reads it" {
        setup_files
        every_kind
        dmg_write disk.dmg
        vdtool convert -O raw disk.dmg out.raw
        cmp out.raw dmg.raw
        same "$(content_7z disk.dmg dmg)" "$(sha256 dmg.raw)"
        succeeds vdtool check --data disk.dmg
        same "$(vdtool info --field format-specific.data.subformat disk.dmg)" UDRO+UDCO+UDZO+UDBZ+ULFO+ULMO
        same "$(vdtool info --field virtual-size disk.dmg)" 165888
        same "$(vdtool info --field 'format-specific.data.tables.1.name' disk.dmg)" 'a <part>'
}

@test "LZFSE chunks with stored blocks" {
        setup_files
        dmg_new
        dmg_chunk 80000007 1 stored
        dmg_table
        dmg_write disk.dmg
        vdtool convert -O raw disk.dmg out.raw
        cmp out.raw dmg.raw
        succeeds vdtool check --data disk.dmg
}

@test "tables in a resource fork, in the property list, a trailer in front, junk behind" {
        setup_files
        simple
        dmg_write list.dmg
        DMG_RESOURCES=1 dmg_write fork.dmg
        cp list.dmg junk.dmg
        head -c 700 /dev/zero | tr '\0' j >>junk.dmg
        DMG_DATA_OFFSET=512 dmg_write front.dmg
        local file
        for file in list fork; do
                qemu-img compare -q -f dmg -F raw $file.dmg dmg.raw || say "qemu-img: $file.dmg" || return 1
        done
        for file in list fork front junk; do
                succeeds vdtool compare $file.dmg dmg.raw || return 1
                succeeds vdtool check --data $file.dmg || return 1
        done
        same "$(vdtool info --field format-specific.data.tables-in fork.dmg)" 'resource fork'
        vdtool check junk.dmg | grep -q dmg-trailing
}

@test "no sectors in the trailer: the tables tell the size" {
        setup_files
        simple
        DMG_SECTORS=0 dmg_write disk.dmg
        same "$(vdtool info --field virtual-size disk.dmg)" "$(size_of dmg.raw)"
        succeeds vdtool compare disk.dmg dmg.raw
}

@test "what no table covers reads as zeros, and check says so" {
        setup_files
        simple
        DMG_SECTORS=1000 dmg_write disk.dmg
        truncate -s 512000 dmg.raw
        succeeds vdtool compare disk.dmg dmg.raw
        vdtool check disk.dmg | grep -q dmg-gap
}

@test "map shows packed, plain and empty chunks" {
        setup_files
        simple
        dmg_write disk.dmg
        vdtool map --output json disk.dmg >map.json
        same "$(jq -c '[.[] | [.start, .length, .data, .zero]]' map.json)" \
                '[[0,32768,true,false],[32768,4608,false,true],[37376,4096,true,false],[41472,3584,false,true]]'
}

@test "checksums: of a table, of the data fork, of all tables" {
        setup_files
        simple
        dmg_write good.dmg
        cp good.dmg disk.dmg
        local at
        at=$(($(stat -c %s dmg.fork) - 4096))   # the raw chunk
        poke disk.dmg $((at + 100)) 5a
        succeeds vdtool check disk.dmg          # the structure is all right
        capture vdtool check --data disk.dmg
        same "$status" 2
        [[ $output == *dmg-table-checksum* && $output == *dmg-data-checksum* ]] || told
        cp good.dmg disk.dmg
        poke disk.dmg $(($(size_of disk.dmg) - 512 + 0x168)) 00000000
        capture vdtool check disk.dmg
        same "$status" 2
        [[ $output == *dmg-checksum* ]] || told
        # no checksum, no complaint
        poke disk.dmg $(($(size_of disk.dmg) - 512 + 0x160)) 00000000
        poke disk.dmg $(($(size_of disk.dmg) - 512 + 0x50)) 00000000
        succeeds vdtool check --data disk.dmg
}

@test "damaged tables are refused, and check names what is wrong" {
        setup_files
        # a chunk of an unknown type, too far, too long for its table
        dmg_new
        dmg_chunk 80000009 8 noise
        dmg_table
        dmg_write type.dmg
        fails_with 'unknown type 0x80000009' vdtool convert -O raw type.dmg out
        dmg_new
        dmg_chunk 00000001 8 noise
        DMG_MISH_SECTORS=4 dmg_table
        dmg_write long.dmg
        fails_with 'the table has 4 sectors' vdtool convert -O raw long.dmg out
        dmg_new
        dmg_chunk 00000001 8 noise
        DMG_MISH_SECTORS=100 dmg_table
        DMG_SECTORS=100 dmg_write short.dmg
        fails_with 'has no chunk for 47104 bytes' vdtool convert -O raw short.dmg out
        capture vdtool check short.dmg
        [[ $status == 2 && $output == *dmg-chunk-missing* ]] || told
        dmg_new
        dmg_chunk 00000001 8 noise
        # shellcheck disable=SC2034 # read by dmg.bash
        dmg_first=4
        dmg_chunk 00000001 8 noise
        dmg_table
        dmg_write overlap.dmg
        fails_with 'shares it with others' vdtool convert -O raw overlap.dmg out
        capture vdtool check overlap.dmg
        [[ $status == 2 && $output == *dmg-chunk-overlap* ]] || told
        dmg_new
        dmg_chunk 00000001 8 noise
        DMG_NO_END=1 dmg_table
        dmg_write end.dmg
        vdtool check end.dmg | grep -q dmg-no-terminator
        dmg_new
        dmg_chunk 00000001 8 noise
        dmg_table
        DMG_FORK_LENGTH=4000 dmg_write fork.dmg
        fails_with 'outside the data fork' vdtool convert -O raw fork.dmg out
        DMG_SECTORS=4 dmg_write small.dmg
        fails_with 'the disk has 2048 bytes' vdtool convert -O raw small.dmg out
        [ ! -e out ]
}

@test "a packed chunk that does not unpack is refused" {
        setup_files
        local kind
        for kind in 80000004:adc:16 80000005:text:64 80000006:text:64 80000007:lzvn:1 80000008:text:64; do
                IFS=: read -r type file sectors <<<"$kind"
                dmg_new
                dmg_chunk "$type" "$sectors" "$file"
                dmg_table
                dmg_write disk.dmg
                poke disk.dmg 12 ffffffffffffffff
                fails_with 'compressed unit at 0' vdtool convert -O raw disk.dmg out || return 1
                [ ! -e out ]
                capture vdtool check --data disk.dmg
                [[ $status == 2 && $output == *packed-data* ]] || told || return 1
        done
}

@test "trailers that are not for us: another version, segments, encrypted and sparse images" {
        setup_files
        simple
        DMG_VERSION=5 dmg_write version.dmg
        fails_with 'version 5' vdtool info version.dmg
        DMG_SEGMENTS=3 dmg_write segment.dmg
        fails_with 'segment' vdtool info segment.dmg
        { printf encrcdsa && head -c 5000 /dev/zero; } >encrypted.dmg
        fails_with encrypted vdtool info encrypted.dmg
        { head -c 5000 /dev/zero && printf cdsaencr; } >encrypted1
        fails_with encrypted vdtool info encrypted1
        { printf sprs && head -c 5000 /dev/zero; } >sparse.img
        fails_with sparse vdtool info sparse.img
        cp text disk.dmg
        fails_with '-f raw' vdtool info disk.dmg
}

@test "property lists: entities, no tables, no base64, no XML" {
        setup_files
        simple
        dmg_write good.dmg
        local old='PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd"' new
        new=$(printf '[<!ENTITY a "%*s">]' $((${#old} - 16)) '')
        LC_ALL=C sed "s|$old|$new|" good.dmg >bad.dmg
        same "$(size_of bad.dmg)" "$(size_of good.dmg)"
        fails_with entities vdtool info bad.dmg
        LC_ALL=C sed 's/<key>blkx/<key>blkz/' good.dmg >bad.dmg
        fails_with blkx vdtool info bad.dmg
        LC_ALL=C sed 's/bWlza/bWl:a/' good.dmg >bad.dmg
        fails_with base64 vdtool info bad.dmg
        LC_ALL=C sed 's/bWlza/bWlza/;s/bWlz/bWlX/' good.dmg >bad.dmg
        fails_with mish vdtool info bad.dmg
        LC_ALL=C sed 's/<array>/<arrax>/' good.dmg >bad.dmg
        fails_with 'property list' vdtool info bad.dmg
}

@test "cut anywhere, a DMG is refused or reads right" {
        setup_files
        every_kind
        dmg_write whole
        local at size
        size=$(size_of whole)
        for at in $(seq 0 1777 "$size") $((size - 1)) $((size - 511)) $((size - 512)); do
                head -c "$at" whole >disk.dmg
                fails_cleanly vdtool convert -f dmg -O raw disk.dmg out || return 1
                fails_cleanly vdtool convert -O raw disk.dmg out || return 1
        done
        [ ! -e out ]
}

@test "in place and as a target: refused, nothing changed" {
        setup_files
        simple
        dmg_write disk.dmg
        local before
        before=$(sha256 disk.dmg)
        fails_with 'only read' vdtool convert -n -O dmg dmg.raw disk.dmg
        fails_cleanly vdtool create -f dmg new.dmg 1M
        same "$(sha256 disk.dmg)" "$before"
        [ ! -e new.dmg ]
}

@test "images by hdiutil and libdmg-hfsplus have the content of the manifest, and good checksums" {
        requires corpus
        local file name
        for file in $(corpus_known dmg); do
                name=$(corpus "$file")
                same "$(content "$name")" "$(corpus_fact "$file" content_sha256)" || say "$file" || return 1
                succeeds vdtool check --data "$name" || say "$file" || return 1
                rm "$name"
        done
        for file in hostile/fuzz-mul-overflow.dmg hostile/libmodi-koly.dmg; do
                name=$(corpus $file)
                fails_cleanly vdtool convert -O raw "$name" out || return 1
        done
}
