# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# vhdx.bash: changes VHDX images byte by byte, for states that no tool at hand leaves behind.  Needs vhd.bash and poke().

l16() { printf '%02x%02x' $(($1 & 255)) $(($1 >> 8 & 255)); }
l32() { printf '%s%s' "$(l16 $(($1 & 65535)))" "$(l16 $(($1 >> 16 & 65535)))"; }
l64() { printf '%s%s' "$(l32 $(($1 & 0xffffffff)))" "$(l32 $(($1 >> 32 & 0xffffffff)))"; }
# vhdx_number FILE OFFSET COUNT: a little-endian number.
vhdx_number() {
        local byte value=0 shift=0
        for byte in $(od -An -v -tu1 -j "$(($2))" -N "$3" "$1"); do
                value=$((value | byte << shift)) shift=$((shift + 8))
        done
        echo $value
}

# CRC-32C of decimal bytes on standard input.  A shell of its own, because bats watches every command of its own one.
vhdx_crc() {
        bash -c '
                for ((i = 0; i < 256; i++)); do
                        c=$i
                        for _ in 1 2 3 4 5 6 7 8; do
                                c=$((c & 1 ? c >> 1 ^ 0x82f63b78 : c >> 1))
                        done
                        table[i]=$c
                done
                crc=$((0xffffffff))
                for byte in $(cat); do
                        crc=$((crc >> 8 ^ table[(crc ^ byte) & 255]))
                done
                echo $((crc ^ 0xffffffff))'
}

# vhdx_seal FILE OFFSET LENGTH: the CRC-32C of a structure, whose checksum field is at byte 4.
vhdx_seal() {
        poke "$1" $(($2 + 4)) 00000000
        poke "$1" $(($2 + 4)) "$(l32 "$(od -An -v -tu1 -j "$(($2))" -N "$3" "$1" | vhdx_crc)")"
}
# vhdx_headers FILE OFFSET HEX: the same bytes into both headers.
vhdx_headers() {
        local at
        for at in 65536 131072; do
                poke "$1" $((at + $2)) "$3"
                vhdx_seal "$1" $at 4096
        done
}
# vhdx_regions FILE OFFSET HEX: the same bytes into both region tables.
vhdx_regions() {
        poke "$1" $((196608 + $2)) "$3"
        vhdx_seal "$1" 196608 65536
        dd if="$1" of="$1" bs=65536 skip=3 seek=4 count=1 conv=notrunc status=none
}
# vhdx_bat FILE ENTRY VALUE: in images of qemu-img, whose BAT is at 2 MiB.
vhdx_bat() { poke "$1" $((0x200000 + 8 * $2)) "$(l64 "$3")"; }

# vhdx_entry GUID SEQUENCE TAIL FLUSHED LAST CHANGE...: a log entry on standard output; a CHANGE is data:POSITION:FILE (of
# 4096 bytes) or zero:POSITION:LENGTH.
vhdx_entry() {
        local guid=$1 sequence=$2 head change kind position what count=0 piece tail
        local descriptors='' data='' file
        head=$(l32 "$3") tail=$guid$(l64 "$4")$(l64 "$5")
        shift 5
        for change; do
                IFS=: read -r kind position what <<<"$change"
                if [ "$kind" = data ]; then
                        piece=$(od -An -v -tx1 "$what" | tr -d ' \n')
                        descriptors+=$(ascii desc)${piece: -8}${piece:0:16}
                        data+=$(ascii data)$(l32 $((sequence >> 32)))${piece:16:8168}$(l32 "$sequence")
                else
                        descriptors+=$(ascii zero)00000000$(l64 "$what")
                fi
                descriptors+=$(l64 "$position")$(l64 "$sequence")
                count=$((count + 1))
        done
        head=$(ascii loge)00000000$(l32 $((4096 + ${#data} / 2)))$head$(l64 "$sequence")$(l32 $count)00000000$tail
        file=$(mktemp)
        bytes "$(padded 4096 "$head$descriptors")$data" >"$file"
        vhdx_seal "$file" 0 "$(stat -c %s "$file")"
        cat "$file"
        rm "$file"
}
# vhdx_log FILE SECTOR: standard input into the log of 1 MiB at 1 MiB, from that sector on and around its end.
vhdx_log() {
        local sectors
        cat >"$1.entry"
        sectors=$(($(stat -c %s "$1.entry") / 4096))
        dd if="$1.entry" of="$1" bs=4096 seek=$((256 + $2)) count=$((256 - $2)) conv=notrunc status=none
        [ $(($2 + sectors)) -le 256 ] ||
                dd if="$1.entry" of="$1" bs=4096 skip=$((256 - $2)) seek=256 conv=notrunc status=none
        rm "$1.entry"
}

# vhdx_locator KEY VALUE...: a parent locator item as hexadecimal digits.
vhdx_locator() {
        local entries='' texts='' at=$((20 + 6 * $#)) text
        while [ $# -gt 0 ]; do
                entries+=$(l32 $at)
                text=$(utf16le "$1")$(utf16le "$2")
                entries+=$(l32 $((at + 2 * ${#1})))$(l16 $((2 * ${#1})))$(l16 $((2 * ${#2})))
                texts+=$text
                at=$((at + ${#text} / 2))
                shift 2
        done
        printf '%s0000%s%s%s' b7ef4ab09ed1814ab78925b8e9445913 "$(l16 $((${#entries} / 24)))" "$entries" "$texts"
}
# vhdx_guid FILE OFFSET: the GUID that is stored there, as text.
vhdx_guid() {
        local g
        g=$(od -An -v -tx1 -j "$2" -N 16 "$1" | tr -d ' \n')
        printf '%s' "${g:6:2}${g:4:2}${g:2:2}${g:0:2}-${g:10:2}${g:8:2}-${g:14:2}${g:12:2}-${g:16:4}-${g:20:12}"
}
# vhdx_make_child FILE LOCATOR: turns an empty disk by qemu-img (block_size=1M) into a differencing one.  Block 0: sectors
# 0, 9 and 2047 are its own; block 1: all; block 2: the parent's; block 3: zeros; the bitmap block is at 8 MiB.
vhdx_make_child() {
        truncate -s 8M "$1"
        poke "$1" $((0x310004)) 02000000
        poke "$1" $((0x30000a)) 0600
        poke "$1" $((0x3000c0)) 2d5fd3a80bb34d45abf7d3d84834ab0c "$(l32 $((0x20000)))$(l32 $((${#2} / 2)))" 0400000000000000
        poke "$1" $((0x320000)) "$2"
        vhdx_bat "$1" 0 $((0x900007))
        vhdx_bat "$1" 1 $((0xa00006))
        vhdx_bat "$1" 2 0
        vhdx_bat "$1" 3 2
        vhdx_bat "$1" 4096 $((0x800006))
        truncate -s 11M "$1"
        poke "$1" $((0x800000)) 0102
        poke "$1" $((0x8000ff)) 80
        printf 'sector 0 of the child' | dd of="$1" bs=512 seek=$((0x900000 / 512)) conv=notrunc status=none
        printf 'sector 9 of the child' | dd of="$1" bs=512 seek=$((0x900000 / 512 + 9)) conv=notrunc status=none
        printf 'not to be seen' | dd of="$1" bs=512 seek=$((0x900000 / 512 + 10)) conv=notrunc status=none
        printf 'sector 2047 of the child' | dd of="$1" bs=512 seek=$((0x900000 / 512 + 2047)) conv=notrunc status=none
        yes 'block 1 of the child' | head -c 5000 | dd of="$1" bs=4096 seek=$((0xa00000 / 4096)) conv=notrunc status=none
}
