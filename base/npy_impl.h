/* Shared by the files of base/npy: the bytes of one array, plain or deflated, and its header. */
#ifndef TRM_BASE_NPY_IMPL_H
#define TRM_BASE_NPY_IMPL_H

#include "base/npy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where an array's file lies inside the mapped file. */
typedef struct trmi_npy_member {
    const unsigned char *raw; /* as stored */
    size_t raw_bytes;
    bool deflated;
    uint64_t bytes; /* inflated; equals raw_bytes where stored */
    uint32_t crc;   /* checked for deflated members when the last byte has been read */
} trmi_npy_member;

TRM_MUST_USE trm_status trmi_npy_open(trm_file *file, const char *name,
                                      const trmi_npy_member *member, trm_npy **npy_out);

typedef struct trmi_npy_header {
    trm_tensor desc;
    bool fortran, swap;
    size_t row_bytes, total_bytes;
} trmi_npy_header;
/* Parses the dict text of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }. */
TRM_MUST_USE trm_status trmi_npy_parse(const char *text, size_t bytes, const char *name,
                                       trmi_npy_header *header_out);
/* Magic, version and the header's length field of the first bytes; BAD_FILE where they are wrong.
 */
#define TRMI_NPY_PRELUDE_BYTES 12 /* of versions 2 and 3; version 1 has 10 */
TRM_MUST_USE trm_status trmi_npy_prelude(const unsigned char *bytes, size_t count, const char *name,
                                         size_t *text_offset_out, size_t *text_bytes_out);

#ifdef __cplusplus
}
#endif
#endif
