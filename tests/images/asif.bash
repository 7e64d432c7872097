# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# asif.bash: makes an ASIF by the published description.  Needs dmg.bash and poke().

# asif_file FILE: a disk of 2 GiB and 3 MiB, chunks of 1 MiB; two groups.  Chunk 1: header; 2: table; then
# data: guest chunk 0 -> chunk 3, guest chunk 1 -> 4 (follows it), guest chunk 2 in part -> 5 (bitmap 6),
# guest chunk 2049 (in group 1) -> 7; metadata: the last chunk that the disk may grow to -> 8
asif_file() {
        local file=$1 mib=1048576 most=$((63 * 2048 * 2048)) table=$((2 * 1048576))
        truncate -s 0 "$file"
        truncate -s $((9 * mib)) "$file"
        poke "$file" 0 "73686477$(b32 1)$(b32 512)$(b32 0)$(b64 512)$(b64 4096)00112233445566778899aabbccddeeff"
        poke "$file" 48 "$(b64 $((2051 * 2048)))$(b64 $most)$(b32 $mib)$(b16 512)$(b16 0)$(b64 $((63 * 2048 - 1)))"
        poke "$file" 512 "$(b64 3)$(b64 0)"             # older directory
        poke "$file" 4096 "$(b64 4)$(b64 2)"
        poke "$file" $table "4000000000000003 4000000000000004 c000000000000005"
        poke "$file" $((table + 8 * 2048)) 0000000000000006
        poke "$file" $((table + 8 * (2049 + 1 + 1))) 0000000000000000
        poke "$file" $((table + 8 * (2049 + 1))) 4000000000000007
        # the chunk before the last bitmap of the table
        poke "$file" $((table + 8 * (62 * 2049 + 2047))) 4000000000000008
        seq 1 400000 | head -c $((2 * mib)) | dd of="$file" bs=$mib seek=3 conv=notrunc status=none
        head -c $mib /dev/zero | tr '\0' p | dd of="$file" bs=$mib seek=5 conv=notrunc status=none
        # in part: sectors 2, 3, 4 and 7 of guest chunk 2, which is sector 4096 of the group
        poke "$file" $((6 * mib + 4096 / 4)) 5041
        head -c $mib /dev/zero | tr '\0' q | dd of="$file" bs=$mib seek=7 conv=notrunc status=none
        poke "$file" $((8 * mib)) "6d657461$(b32 1)$(b32 512)$(b64 512)"
        printf '<?xml version="1.0"?><plist version="1.0"><dict><key>internal metadata</key><dict><key>stable uuid</key>%s' \
                '<string>ABC</string></dict></dict></plist>' | dd of="$file" bs=1 seek=$((8 * mib + 512)) conv=notrunc status=none
}

# asif_disk FILE: what it holds
asif_disk() {
        local sector
        rm -f "$1"
        truncate -s $((2051 * 1048576)) "$1"
        seq 1 400000 | head -c 2097152 | dd of="$1" conv=notrunc status=none
        for sector in 2 3 4 7; do
                head -c 512 /dev/zero | tr '\0' p | dd of="$1" bs=512 seek=$((4096 + sector)) conv=notrunc status=none
        done
        head -c 1048576 /dev/zero | tr '\0' q | dd of="$1" bs=1M seek=2049 conv=notrunc status=none
}
