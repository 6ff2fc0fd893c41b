/* SPDX-License-Identifier: Apache-2.0 */
/* Capability chains at the end of what VFIO's INFO ioctls return (linux/vfio.h). No I/O here.
 *
 * `info` is the whole struct as the kernel filled it, `bytes` its length, `first` its cap_offset.
 * Offsets come from outside the process: each is checked, and must lie behind the one before. */
#ifndef TEPI_DRIVER_VFIO_CHAIN_H
#define TEPI_DRIVER_VFIO_CHAIN_H

#include <stdint.h>

/* Both ends belong to it. */
struct tepi_iova_range {
    uint64_t first, last;
};

/* Part of a region that may be mapped into the process. */
struct tepi_vfio_area {
    uint64_t offset, bytes;
};

/* VFIO_REGION_INFO_CAP_SPARSE_MMAP. Returns how many areas there are, at most `most` of them
 * filled in; -ENOENT (the chain has no such capability) or -EBADMSG (the chain makes no sense). */
int tepi_vfio_sparse_areas(const void *info, uint32_t bytes, uint32_t first,
                           struct tepi_vfio_area *areas, uint32_t most);

/* VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, in the same way. */
int tepi_vfio_iova_ranges(const void *info, uint32_t bytes, uint32_t first,
                          struct tepi_iova_range *ranges, uint32_t most);

#endif
