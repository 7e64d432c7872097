// SPDX-License-Identifier: MIT
/* vhdx_log.h: entries of the VHDX log, for those who replay and those who write them. */
#ifndef VD_FORMATS_VHDX_LOG_H
#define VD_FORMATS_VHDX_LOG_H

#include "vhdx.h"

enum {
        VHDX_LOG_PER_SECTOR = 128,      /* descriptors in a sector */
        VHDX_LOG_FIRST = 2,             /* descriptors whose room the header takes in the first */
};
/* A disk of 64 TiB with its bitmaps and every region as long as it can be. */
#define VHDX_LAST_MAX (128ull << 40)

struct vhdx_log_header_disk {
        char signature[4];              /* "loge" */
        le32 checksum;                  /* over the whole entry */
        le32 length;                    /* of the entry, in bytes */
        le32 tail;                      /* offset in the log of the oldest entry that is still needed */
        le64 sequence;
        le32 count;                     /* descriptors */
        le32 reserved;
        uint8_t log_guid[16];           /* as in the header, or the entry is an old one */
        le64 flushed;                   /* length of the file that was on disk when this was written */
        le64 last;                      /* length of the file that has room for everything */
};
static_assert(sizeof(struct vhdx_log_header_disk) == 64, "VHDX log entry header");

struct vhdx_log_descriptor_disk {
        char signature[4];              /* "desc": the next data sector goes to position; "zero": a range of zeros */
        uint8_t trailing[4];            /* data: the last bytes of the sector */
        le64 leading;                   /* data: its first 8 bytes, as they are; zero: length of the range */
        le64 position;
        le64 sequence;                  /* that of the entry */
};
static_assert(sizeof(struct vhdx_log_descriptor_disk) == 32, "VHDX log descriptor");

struct vhdx_log_data_disk {             /* sequence numbers and signature stand where bytes went to the descriptor */
        char signature[4];              /* "data" */
        le32 sequence_high;
        uint8_t bytes[4084];
        le32 sequence_low;
};
static_assert(sizeof(struct vhdx_log_data_disk) == VHDX_SECTOR, "VHDX log data sector");

#endif
