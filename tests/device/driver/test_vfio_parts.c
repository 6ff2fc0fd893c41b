/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the vfio bus without I/O: capability chains, bus addresses, what sysfs tells. */
#include "check.h"
#include "driver/vfio_iova.h"
#include "driver/vfio_sysfs.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, FIRST = 32, BYTES = 96 };

struct chain {
    unsigned char bytes[BYTES];
};

/* At 32 a capability of another kind, at 48 one with two pairs, which end at 96. */
static struct chain chain_of(uint16_t id, uint32_t next, uint32_t pairs)
{
    struct chain chain = {0};
    const struct vfio_info_cap_header other = {.id = 99, .version = 1, .next = next};
    const struct vfio_info_cap_header header = {.id = id, .version = 1};
    const uint64_t values[4] = {0, 0xfedfffff, 0xfef00000, 0x7fffffffff};
    memcpy(chain.bytes + FIRST, &other, sizeof other);
    memcpy(chain.bytes + 48, &header, sizeof header);
    memcpy(chain.bytes + 56, &pairs, sizeof pairs);
    memcpy(chain.bytes + 64, values, sizeof values);
    return chain;
}

static int ranges_of(const struct chain *chain, uint32_t bytes, uint32_t first)
{
    struct tepi_iova_range ranges[2];
    return tepi_vfio_iova_ranges(chain->bytes, bytes, first, ranges, 2);
}

CHECK_CASE(finds_a_capability_behind_another)
{
    struct tepi_iova_range ranges[2];
    struct tepi_vfio_area areas[2];
    struct chain chain = chain_of(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 48, 2);
    CHECK_INT(tepi_vfio_iova_ranges(chain.bytes, BYTES, FIRST, ranges, 2), 2);
    CHECK_INT(ranges[1].first, 0xfef00000);
    CHECK_INT(ranges[1].last, 0x7fffffffff);
    CHECK_INT(tepi_vfio_iova_ranges(chain.bytes, BYTES, FIRST, ranges, 1), 2);
    chain = chain_of(VFIO_REGION_INFO_CAP_SPARSE_MMAP, 48, 2);
    CHECK_INT(tepi_vfio_sparse_areas(chain.bytes, BYTES, FIRST, areas, 2), 2);
    CHECK_INT(areas[0].bytes, 0xfedfffff);
    chain = chain_of(77, 48, 2);
    CHECK_INT(ranges_of(&chain, BYTES, FIRST), -ENOENT);
    CHECK_INT(ranges_of(&chain, BYTES, 0), -ENOENT);
}

CHECK_CASE(hostile_chain_is_refused)
{
    struct chain chain = chain_of(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 48, 2);
    CHECK_INT(ranges_of(&chain, BYTES, BYTES - 4), -EBADMSG);
    CHECK_INT(ranges_of(&chain, BYTES, 0xfffffff0u), -EBADMSG);
    CHECK_INT(ranges_of(&chain, BYTES - 8, FIRST), -EBADMSG); /* the last pair is cut off */
    CHECK_INT(ranges_of(&chain, 60, FIRST), -EBADMSG);        /* the count is */
    const uint32_t next[] = {FIRST, 8, FIRST + 4, BYTES + 8, 0xffffffffu};
    for (size_t i = 0; i < sizeof next / sizeof next[0]; i++) { /* rings and ways out */
        chain = chain_of(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, next[i], 2);
        CHECK_INT(ranges_of(&chain, BYTES, FIRST), -EBADMSG);
    }
    chain = chain_of(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 48, 0x10000001u);
    CHECK_INT(ranges_of(&chain, BYTES, FIRST), -EBADMSG);
}

static uint64_t take(struct tepi_iova_space *space, uint64_t bytes)
{
    struct tepi_iova_extent extent = {.bytes = bytes};
    const int result = tepi_iova_take(space, &extent);
    return result ? (uint64_t)(int64_t)result : extent.iova;
}

CHECK_CASE(addresses_keep_to_the_ranges)
{
    const struct tepi_iova_range ranges[] = {{0, 0x13fff}, {0x20800, 0x25fff}, {0x40000, 0x40fff}};
    struct tepi_iova_space space;
    CHECK_INT(tepi_iova_init(&space, ranges, 3, PAGE), 0);
    CHECK_INT(take(&space, 2 * PAGE), 0x10000); /* nothing lies below it */
    CHECK_INT(take(&space, 2 * PAGE), 0x21000); /* 0x13000 is free, and too little */
    CHECK_INT(take(&space, PAGE), 0x24000);     /* a page stays free between them */
    CHECK_INT(take(&space, PAGE), 0x40000);
    CHECK_INT(take(&space, PAGE), 0x13000); /* from the lowest again */
    CHECK_INT(take(&space, PAGE), -ENOSPC);
    CHECK_INT(take(&space, 0), -EINVAL);
    CHECK_INT(take(&space, PAGE + 1), -EINVAL);
    CHECK_INT(take(&space, ~0ull & ~4095ull), -ENOSPC);
    CHECK_INT(tepi_iova_give(&space, 0x11000).bytes, 0);
    CHECK_INT(tepi_iova_give(&space, 0x21000).bytes, 2 * PAGE);
    CHECK_INT(take(&space, 2 * PAGE), 0x21000);
    tepi_iova_free(&space);
}

CHECK_CASE(an_address_given_back_is_not_the_next)
{
    struct tepi_iova_space space;
    CHECK_INT(tepi_iova_init(&space, NULL, 0, PAGE), 0);
    uint64_t before = 0;
    for (int i = 0; i < 100; i++) {
        const uint64_t iova = take(&space, PAGE);
        CHECK(iova > before);
        before = iova;
        CHECK_INT(tepi_iova_give(&space, iova).bytes, PAGE);
    }
    CHECK_INT(take(&space, 1ull << 32), 0xfef00000); /* clear of where interrupts go */
    tepi_iova_free(&space);
}

CHECK_CASE(senseless_ranges_are_refused)
{
    const struct tepi_iova_range overlap[] = {{0, 0x2ffff}, {0x2ffff, 0x3ffff}};
    const struct tepi_iova_range inverted[] = {{0x30000, 0x20000}};
    const struct tepi_iova_range little[] = {{0x10001, 0x11ffe}};
    struct tepi_iova_space space;
    CHECK_INT(tepi_iova_init(&space, overlap, 2, PAGE), -EBADMSG);
    CHECK_INT(tepi_iova_init(&space, inverted, 1, PAGE), -EBADMSG);
    CHECK_INT(tepi_iova_init(&space, little, 1, PAGE), -ENOSPC);
}

CHECK_CASE(addresses_of_devices)
{
    char address[TEPI_PCI_ADDRESS_BYTES];
    CHECK_INT(tepi_pci_address("01:1F.7", address), 0);
    CHECK(strcmp(address, "0000:01:1f.7") == 0);
    CHECK_INT(tepi_pci_address("00ab:c1:00.0", address), 0);
    CHECK(strcmp(address, "00ab:c1:00.0") == 0);
    const char *bad[] = {"",        "1:00.0",        "01:20.0",
                         "01:00.8", "0000:01:00.0x", "../../../etc",
                         "01-00.0", "0000 01:00.0",  "0000:01:0g.0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_INT(tepi_pci_address(bad[i], address), -EINVAL);
    }
}

/* A sysfs in a folder of its own: 01:00.0 with vfio-pci and 01:00.1 with a sound driver in group
 * 12; 02:00.0 with nvme in group 13; 03:00.0 free in 14; 04:00.0 without an IOMMU. */
static int make_sysfs(char root[64])
{
    strcpy(root, "/tmp/tepi-sysfs-XXXXXX");
    if (!mkdtemp(root)) {
        return -1;
    }
    char command[2048];
    snprintf(command, sizeof command,
             "cd %s && d=bus/pci/devices g=kernel/iommu_groups && mkdir -p $d $g/12/devices && "
             "for a in 01:00.0 01:00.1 02:00.0 03:00.0 04:00.0; do mkdir $d/0000:$a; done && "
             "ln -s ../../../../$g/12 $d/0000:01:00.0/iommu_group && "
             "ln -s ../../../../$g/13 $d/0000:02:00.0/iommu_group && "
             "ln -s ../../../../$g/14 $d/0000:03:00.0/iommu_group && "
             "ln -s ../../drivers/vfio-pci $d/0000:01:00.0/driver && "
             "ln -s ../../drivers/snd_hda_intel $d/0000:01:00.1/driver && "
             "ln -s ../../drivers/nvme $d/0000:02:00.0/driver && "
             "touch $g/12/devices/0000:01:00.0 $g/12/devices/0000:01:00.1",
             root);
    return system(command);
}

CHECK_CASE(sysfs_tells_why_not)
{
    char root[64];
    char command[96];
    struct tepi_bus_reason reason;
    CHECK_INT(make_sysfs(root), 0);
    CHECK_INT(tepi_vfio_group(root, "0000:01:00.0", &reason), 12);
    CHECK_INT(tepi_vfio_group(root, "0000:02:00.0", &reason), -EBUSY);
    CHECK(strstr(reason.what, "held by the driver nvme"));
    CHECK(strstr(reason.remedy, "driverctl set-override 0000:02:00.0 vfio-pci"));
    CHECK_INT(tepi_vfio_group(root, "0000:03:00.0", &reason), -ENXIO);
    CHECK_INT(tepi_vfio_group(root, "0000:04:00.0", &reason), -EOPNOTSUPP);
    CHECK(strstr(reason.remedy, "intel_iommu=on"));
    CHECK_INT(tepi_vfio_group(root, "0000:05:00.0", &reason), -ENODEV);
    CHECK_INT(tepi_vfio_not_viable(root, "0000:01:00.0", &reason), -EPERM);
    CHECK(strstr(reason.what, "0000:01:00.1 (snd_hda_intel)"));
    snprintf(command, sizeof command, "rm -r %s", root);
    CHECK_INT(system(command), 0);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(finds_a_capability_behind_another),
    CHECK_ENTRY(hostile_chain_is_refused),
    CHECK_ENTRY(addresses_keep_to_the_ranges),
    CHECK_ENTRY(an_address_given_back_is_not_the_next),
    CHECK_ENTRY(senseless_ranges_are_refused),
    CHECK_ENTRY(addresses_of_devices),
    CHECK_ENTRY(sysfs_tells_why_not),
};

CHECK_MAIN(cases)
