# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# dmg.bash: makes UDIF images chunk by chunk.  Needs gzip, bzip2, xz, base64.
#
#       dmg_new                         begins: an empty data fork, no tables
#       dmg_chunk TYPE SECTORS [FILE]   the next chunk; its bytes are those of FILE, packed as TYPE says
#       dmg_table                       the chunks so far are a table
#       dmg_write FILE [KEY=VALUE ...]  everything; variables below may be changed before
#
# The disk as it should read is in dmg.raw.

b16() { printf '%04x' $(($1 & 65535)); }
b32() { printf '%08x' $(($1 & 0xffffffff)); }
b64() { printf '%016x' "$1"; }
hex_bytes() { printf '%b' "$(sed 's/../\\x&/g' <<<"$1")"; }
hex_zeros() { printf '%0*d' $(($1 * 2)) 0; }

# The CRC-32 of standard input: gzip's trailer has it, little-endian.
crc32_of() { gzip -nc | tail -c 8 | head -c 4 | od -An -v -tx1 | awk '{ print $4 $3 $2 $1 }'; }

# Adler-32 of a file, for zlib streams.
adler32_of() {
        od -An -v -tu1 -w1 "$1" | awk 'BEGIN { a = 1 } { a = (a + $1) % 65521; b = (b + a) % 65521 }
                                       END { printf "%04x%04x", b, a }'
}

zlib_of() {
        hex_bytes 789c
        gzip -nc <"$1" | tail -c +11 | head -c -8
        hex_bytes "$(adler32_of "$1")"
}

dmg_new() {
        : >dmg.fork
        : >dmg.raw
        : >dmg.sum
        dmg_tables=() dmg_sums='' dmg_chunks='' dmg_count=0 dmg_first=0 dmg_start=0
        DMG_MISH_SECTORS='' DMG_SECTORS='' DMG_FORK_LENGTH='' DMG_VERSION=4 DMG_SEGMENTS=1 DMG_DATA_OFFSET=0
}

# dmg_stored TYPE FILE: what stands in the data fork; FILE of ADC and LZFSE chunks is packed already, its plain form in FILE.plain
dmg_stored() {
        case $1 in
        80000005) zlib_of "$2" ;;
        80000006) bzip2 -c "$2" ;;
        80000008) xz -c "$2" ;;
        *) cat "$2" ;;
        esac
}

dmg_record() { dmg_chunks+=$1$(b32 0)$(b64 "$2")$(b64 "$3")$(b64 "$4")$(b64 "$5") dmg_count=$((dmg_count + 1)); }

dmg_chunk() {
        local type=$1 sectors=$2 file=${3:-} at plain
        at=$(stat -c %s dmg.fork)
        case $type in
        00000000 | 00000002) plain=/dev/zero ;;
        80000004 | 80000007) plain=$file.plain ;;
        *) plain=$file ;;
        esac
        head -c $((sectors * 512)) "$plain" >>dmg.raw
        [ "$type" = 00000002 ] || head -c $((sectors * 512)) "$plain" >>dmg.sum
        [ -z "$file" ] || dmg_stored "$type" "$file" >>dmg.fork
        dmg_record "$type" "$dmg_first" "$sectors" "$at" $(($(stat -c %s dmg.fork) - at))
        dmg_first=$((dmg_first + sectors))
}

dmg_table() {
        local crc
        crc=$(crc32_of <dmg.sum)
        [ -s dmg.sum ] || crc=00000000
        : >dmg.sum
        [ -n "${DMG_NO_END:-}" ] || dmg_record ffffffff "$dmg_first" 0 0 0
        dmg_tables+=("6d69736800000001$(b64 $dmg_start)$(b64 "${DMG_MISH_SECTORS:-$dmg_first}")$(b64 0)$(b32 2056)$(
        )$(b32 0)$(hex_zeros 24)0000000200000020$crc$(hex_zeros 124)$(b32 $dmg_count)$dmg_chunks")
        dmg_sums+=$crc
        dmg_start=$((dmg_start + dmg_first)) dmg_chunks='' dmg_count=0 dmg_first=0
}

dmg_list() {
        local table
        printf '<?xml version="1.0" encoding="UTF-8"?>\n'
        printf '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
        printf '<plist version="1.0">\n<dict>\n<key>resource-fork</key>\n<dict>\n<key>blkx</key>\n<array>\n'
        for table in "${dmg_tables[@]}"; do
                printf '<dict>\n<key>Attributes</key><string>0x0050</string>\n<key>Data</key>\n<data>\n'
                hex_bytes "$table" | base64 -w 52 | sed 's/^/\t\t/'
                printf '</data>\n<key>ID</key><string>0</string>\n<key>Name</key><string>a &lt;part&gt;</string>\n</dict>\n'
        done
        printf '</array>\n</dict>\n</dict>\n</plist>\n'
}

# A classic resource fork with the same tables.
dmg_resources() {
        local table data='' references='' count=${#dmg_tables[@]}
        for table in "${dmg_tables[@]}"; do
                references+=$(b16 0)ffff00$(printf '%06x' $((${#data} / 2)))$(b32 0)
                data+=$(b32 $((${#table} / 2)))$table
        done
        hex_bytes "$(b32 256)$(b32 $((256 + ${#data} / 2)))$(b32 $((${#data} / 2)))$(b32 $((38 + 12 * count)))$(hex_zeros 240)"
        hex_bytes "$data"
        # map: 24 bytes, offsets of types and names; one type
        hex_bytes "$(hex_zeros 24)$(b16 28)$(b16 $((38 + 12 * count)))$(b16 0)$(printf blkx | od -An -tx1 | tr -d ' \n')$(
        )$(b16 $((count - 1)))$(b16 10)$references"
}

# dmg_trailer TABLES-OFFSET TABLES-LENGTH: xml, or with DMG_RESOURCES the resource fork
dmg_trailer() {
        local fork list="$(b64 "$1")$(b64 "$2")" none
        fork=$(stat -c %s dmg.fork)
        none=$(hex_zeros 16)
        hex_bytes "6b6f6c79$(b32 "$DMG_VERSION")$(b32 512)$(b32 1)$(b64 0)$(b64 "$DMG_DATA_OFFSET")$(b64 "${DMG_FORK_LENGTH:-$fork}")$(
        )$([ -z "${DMG_RESOURCES:-}" ] && echo "$none" || echo "$list")$(b32 1)$(b32 "$DMG_SEGMENTS")$(hex_zeros 16)$(
        )0000000200000020$(crc32_of <dmg.fork)$(hex_zeros 124)$(
        )$([ -z "${DMG_RESOURCES:-}" ] && echo "$list" || echo "$none")$(hex_zeros 120)$(
        )0000000200000020$(hex_bytes "$dmg_sums" | crc32_of)$(hex_zeros 124)$(b32 1)$(
        )$(b64 "${DMG_SECTORS:-$dmg_start}")$(hex_zeros 12)"
}

dmg_write() {
        local fork
        fork=$(stat -c %s dmg.fork)
        if [ -n "${DMG_RESOURCES:-}" ]; then dmg_resources >dmg.list; else dmg_list >dmg.list; fi
        if [ "$DMG_DATA_OFFSET" -gt 0 ]; then   # trailer in front
                { dmg_trailer $((fork + 512)) "$(stat -c %s dmg.list)" && cat dmg.fork dmg.list; } >"$1"
        else
                { cat dmg.fork dmg.list && dmg_trailer "$fork" "$(stat -c %s dmg.list)"; } >"$1"
        fi
        rm -f dmg.list
}

# ADC: "ab" 4096 times
adc_file() {
        {
                hex_bytes 816162
                for _ in $(seq 122); do hex_bytes 7f0001; done
                hex_bytes 3401
        } >"$1"
        yes ab | tr -d '\n' | head -c 8192 >"$1.plain"
}

# LZFSE: one LZVN block, 512 times "x"
lzvn_file() {
        {
                printf 'bvxn'
                hex_bytes 000200000f0000004001
                printf x
                hex_bytes f0eef0ee0600000000000000
                printf 'bvx$'
        } >"$1"
        head -c 512 /dev/zero | tr '\0' x >"$1.plain"
}

# LZFSE: a stored block of 476 bytes and an LZVN block of 36
stored_file() {
        {
                printf 'bvx-'
                hex_bytes dc010000
                seq 1 200 | head -c 476
                printf 'bvxn'
                hex_bytes 2400000015000000e6
                printf 'hello '
                hex_bytes 3806f003e10a0600000000000000
                printf 'bvx$'
        } >"$1"
        { seq 1 200 | head -c 476 && echo hello hello hello hello hello hello; } >"$1.plain"
}
