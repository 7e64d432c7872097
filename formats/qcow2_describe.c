// SPDX-License-Identifier: MIT
/* qcow2_describe.c: the format-specific part of info: qemu-img's keys first, ours after them. */
#include "qcow2.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/checked.h"

/* LUKS version 1, "On-Disk Format Specification" 1.2.2: all that info shows of it. */
struct luks_slot_disk {
        be32 active;                    /* 0x00ac71f3 or 0x0000dead */
        be32 iterations;
        uint8_t salt[32];
        be32 key_sector;
        be32 stripes;
};
static_assert(sizeof(struct luks_slot_disk) == 48, "LUKS key slot");
struct luks_disk {
        uint8_t magic[6];
        be16 version;
        char cipher_name[32];
        char cipher_mode[32];
        char hash[32];
        be32 payload_sector;
        be32 key_bytes;
        uint8_t digest[20];
        uint8_t digest_salt[32];
        be32 digest_iterations;
        char uuid[40];
        struct luks_slot_disk slots[8];
};
static_assert(sizeof(struct luks_disk) == 592, "LUKS header");
#define LUKS_SLOT_ACTIVE 0x00ac71f3u

static void fixed_text(struct vd_report *report, const char *key, const char *label, const char *text, size_t room)
{
        char *copy = strndup(text, room);

        vd_report_text(report, key, label, copy ? copy : "");
        free(copy);
}

/* Mode and IV generator stand in one word: "xts-plain64", "cbc-essiv:sha256". */
static void describe_mode(const struct luks_disk *d, struct vd_report *report)
{
        char mode[33] = "", *iv, *hash;

        memcpy(mode, d->cipher_mode, 32);
        iv = strchr(mode, '-');
        if (iv)
                *iv++ = 0;
        hash = iv ? strchr(iv, ':') : NULL;
        if (hash)
                *hash++ = 0;
        if (iv)
                vd_report_text(report, "ivgen-alg", "ivgen alg", iv);
        if (hash)
                vd_report_text(report, "ivgen-hash-alg", "ivgen hash alg", hash);
        fixed_text(report, "hash-alg", "hash alg", d->hash, sizeof(d->hash));
        vd_report_textf(report, "cipher-alg", "cipher alg", "%.32s%s%" PRIu32, d->cipher_name,
                        d->cipher_name[0] ? "-" : "", be32_get(d->key_bytes) * 8 / (strcmp(mode, "xts") ? 1 : 2));
        fixed_text(report, "uuid", "uuid", d->uuid, sizeof(d->uuid));
        vd_report_text(report, "cipher-mode", "cipher mode", mode);
}

static void describe_luks(struct vd_image *img, const struct qcow2 *q, struct vd_report *report)
{
        struct vd_error ignored = VD_ERROR_INIT;
        struct vd_report *slots;
        struct luks_disk d;

        if (q->crypto.length < sizeof(d) || vd_file_read(img->file, &d, sizeof(d), q->crypto.position, &ignored) ||
            memcmp(d.magic, "LUKS\xba\xbe", 6) || be16_get(d.version) != 1)
                return;
        describe_mode(&d, report);
        slots = vd_report_list(report, "slots", "slots");
        for (size_t i = 0; i < 8; i++) {
                const struct luks_slot_disk *s = &d.slots[i];
                bool active = be32_get(s->active) == LUKS_SLOT_ACTIVE;
                struct vd_report *item = vd_report_item(slots);

                vd_report_flag(item, "active", "active", active);
                if (active) {
                        vd_report_count(item, "iters", "iters", be32_get(s->iterations));
                        vd_report_count(item, "stripes", "stripes", be32_get(s->stripes));
                }
                vd_report_count(item, "key-offset", "key offset", (uint64_t)be32_get(s->key_sector) * 512);
        }
        vd_report_count(report, "payload-offset", "payload offset", (uint64_t)be32_get(d.payload_sector) * 512);
        vd_report_count(report, "master-key-iters", "master key iters", be32_get(d.digest_iterations));
}

static void describe_bitmap(const struct qcow2_bitmap_disk *d, const char *name, struct vd_report *item)
{
        struct vd_report *flags = vd_report_list(item, "flags", "flags");

        if (be32_get(d->flags) & QCOW2_BITMAP_IN_USE)
                vd_report_item_text(flags, "in-use");
        if (be32_get(d->flags) & QCOW2_BITMAP_AUTO)
                vd_report_item_text(flags, "auto");
        vd_report_text(item, "name", "name", name);
        vd_report_count(item, "granularity", "granularity",
                        d->granularity_bits < 64 ? UINT64_C(1) << d->granularity_bits : 0);
}

static void describe_bitmaps(struct vd_image *img, const struct qcow2 *q, struct vd_report *report)
{
        uint32_t count = be32_get(q->bitmaps.count);
        uint64_t at = be64_get(q->bitmaps.directory_position);
        struct vd_report *list;

        if (!q->has_bitmaps)
                return;
        if (!(q->autoclear & QCOW2_BITMAPS_VALID)) {
                vd_report_count(report, "stale-bitmaps", "stale bitmaps", count);
                return;
        }
        list = vd_report_list(report, "bitmaps", "bitmaps");
        for (uint32_t i = 0; i < count && i < QCOW2_MAX_BITMAPS; i++) {
                struct vd_error why = VD_ERROR_INIT;
                struct qcow2_bitmap_disk d;
                char *name;

                if (qcow2_bitmap_read(img, at, &d, &name, &at, &why)) {
                        vd_report_text(report, "bitmaps-error", "bitmaps error", why.text);
                        return;
                }
                describe_bitmap(&d, name, vd_report_item(list));
                free(name);
        }
}

void qcow2_describe(struct vd_image *img, struct vd_report *report)
{
        const struct qcow2 *q = img->state;

        vd_report_text(report, "compat", "compat", q->version >= 3 ? "1.1" : "0.10");
        vd_report_text(report, "compression-type", "compression type", q->codec == VD_CODEC_ZSTD ? "zstd" : "zlib");
        if (q->version >= 3)
                vd_report_flag(report, "lazy-refcounts", "lazy refcounts", q->compatible & QCOW2_LAZY_REFCOUNTS);
        describe_bitmaps(img, q, report);
        vd_report_count(report, "refcount-bits", "refcount bits", UINT64_C(1) << q->refcount_order);
        if (q->version >= 3)
                vd_report_flag(report, "corrupt", "corrupt", q->incompatible & QCOW2_CORRUPT);
        if (q->crypt_method) {
                struct vd_report *encrypt = vd_report_section(report, "encrypt", "encrypt");

                vd_report_text(encrypt, "format", "format", q->crypt_method == QCOW2_CRYPT_AES ? "aes" : "luks");
                if (q->crypt_method == QCOW2_CRYPT_LUKS)
                        describe_luks(img, q, encrypt);
        }
        if (qcow2_has_data_file(q)) {
                vd_report_text(report, "data-file", "data file", q->data_name ? q->data_name : "");
                vd_report_flag(report, "data-file-raw", "data file raw", q->autoclear & QCOW2_RAW_DATA_FILE);
        }
        if (q->version >= 3)
                vd_report_flag(report, "extended-l2", "extended l2", q->extended);

        vd_report_count(report, "header-length", "header length", q->header_bytes);
        vd_report_offset(report, "l1-offset", "l1 offset", q->l1_position);
        vd_report_count(report, "l1-entries", "l1 entries", q->l1_entries);
        vd_report_offset(report, "refcount-table-offset", "refcount table offset", q->reftable_position);
        vd_report_count(report, "snapshot-count", "snapshot count", q->snapshot_count);
        if (q->compatible & ~QCOW2_LAZY_REFCOUNTS)
                vd_report_offset(report, "unknown-compatible-features", "unknown compatible features",
                                 q->compatible & ~QCOW2_LAZY_REFCOUNTS);
        if (q->autoclear & ~(QCOW2_BITMAPS_VALID | QCOW2_RAW_DATA_FILE))
                vd_report_offset(report, "unknown-autoclear-features", "unknown autoclear features",
                                 q->autoclear & ~(QCOW2_BITMAPS_VALID | QCOW2_RAW_DATA_FILE));
}
