/* SPDX-License-Identifier: Apache-2.0 */
/* Walking VFIO's capability chains, with every offset checked. */
#include "driver/vfio_chain.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stddef.h>
#include <string.h>

struct capability {
    const unsigned char *at;
    uint32_t bytes; /* to the next capability, or to the end */
};

static int find(const void *info, uint32_t bytes, uint32_t first, uint16_t id,
                struct capability *found)
{
    uint32_t offset = first;
    while (offset) {
        struct vfio_info_cap_header header;
        if (offset > bytes || bytes - offset < sizeof header) {
            return -EBADMSG;
        }
        memcpy(&header, (const unsigned char *)info + offset, sizeof header);
        /* Capabilities lie in ascending order, so that a chain cannot be a ring. */
        if (header.next && (header.next < offset + sizeof header || header.next > bytes)) {
            return -EBADMSG;
        }
        if (header.id == id) {
            found->at = (const unsigned char *)info + offset;
            found->bytes = (header.next ? header.next : bytes) - offset;
            return 0;
        }
        offset = header.next;
    }
    return -ENOENT;
}

/* The pairs of 64-bit numbers that both capabilities hold: a count at `sizeof header`, the pairs
 * 8 bytes behind it. */
static int pairs(const void *info, uint32_t bytes, uint32_t first, uint16_t id, uint64_t (*out)[2],
                 uint32_t most)
{
    _Static_assert(offsetof(struct vfio_region_info_cap_sparse_mmap, areas) == 16, "layout");
    _Static_assert(offsetof(struct vfio_iommu_type1_info_cap_iova_range, iova_ranges) == 16,
                   "layout");
    struct capability capability;
    const int result = find(info, bytes, first, id, &capability);
    if (result) {
        return result;
    }
    uint32_t count = 0;
    if (capability.bytes < 16) {
        return -EBADMSG;
    }
    memcpy(&count, capability.at + sizeof(struct vfio_info_cap_header), sizeof count);
    if (count > (capability.bytes - 16) / sizeof *out) {
        return -EBADMSG;
    }
    memcpy(out, capability.at + 16, (count < most ? count : most) * sizeof *out);
    return (int)count;
}

int tepi_vfio_sparse_areas(const void *info, uint32_t bytes, uint32_t first,
                           struct tepi_vfio_area *areas, uint32_t most)
{
    _Static_assert(sizeof *areas == sizeof(struct vfio_region_sparse_mmap_area), "layout");
    return pairs(info, bytes, first, VFIO_REGION_INFO_CAP_SPARSE_MMAP, (uint64_t (*)[2])areas,
                 most);
}

int tepi_vfio_iova_ranges(const void *info, uint32_t bytes, uint32_t first,
                          struct tepi_iova_range *ranges, uint32_t most)
{
    _Static_assert(sizeof *ranges == sizeof(struct vfio_iova_range), "layout");
    return pairs(info, bytes, first, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, (uint64_t (*)[2])ranges,
                 most);
}
