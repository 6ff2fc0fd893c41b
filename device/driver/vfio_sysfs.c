/* SPDX-License-Identifier: Apache-2.0 */
/* Looking a PCI device up in sysfs. */
#include "driver/vfio_sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 64 };

int tepi_bus_refuse(struct tepi_bus_reason *reason, int result, const char *remedy,
                    const char *what, ...)
{
    if (reason) {
        va_list arguments;
        va_start(arguments, what);
        vsnprintf(reason->what, sizeof reason->what, what, arguments);
        va_end(arguments);
        snprintf(reason->remedy, sizeof reason->remedy, "%s", remedy);
    }
    return result;
}

static bool hex_digits(const char *text, size_t count)
{
    return strspn(text, "0123456789abcdefABCDEF") >= count;
}

int tepi_pci_address(const char *text, char address[TEPI_PCI_ADDRESS_BYTES])
{
    const size_t length = strlen(text);
    const char *rest = text;
    unsigned long domain = 0;
    if (length == 12 && hex_digits(text, 4) && text[4] == ':') {
        domain = strtoul(text, NULL, 16);
        rest = text + 5;
    } else if (length != 7) {
        return -EINVAL;
    }
    if (!hex_digits(rest, 2) || rest[2] != ':' || !hex_digits(rest + 3, 2) || rest[5] != '.' ||
        rest[6] < '0' || rest[6] > '7') {
        return -EINVAL;
    }
    const unsigned long bus = strtoul(rest, NULL, 16);
    const unsigned long slot = strtoul(rest + 3, NULL, 16);
    if (slot > 0x1f) {
        return -EINVAL;
    }
    snprintf(address, TEPI_PCI_ADDRESS_BYTES, "%04lx:%02lx:%02lx.%c", domain & 0xffff, bus & 0xff,
             slot, rest[6]);
    return 0;
}

/* The last part of what a link under a device points to: its driver, its group. "": no link. */
static void link_name(const char *sysfs, const char *address, const char *link,
                      char name[NAME_BYTES])
{
    char path[PATH_MAX];
    char target[PATH_MAX];
    name[0] = '\0';
    snprintf(path, sizeof path, "%s/bus/pci/devices/%s/%s", sysfs, address, link);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    if (length > 0) {
        target[length] = '\0';
        const char *slash = strrchr(target, '/');
        snprintf(name, NAME_BYTES, "%.*s", NAME_BYTES - 1, slash ? slash + 1 : target);
    }
}

int tepi_vfio_group(const char *sysfs, const char *address, struct tepi_bus_reason *reason)
{
    char path[PATH_MAX];
    char group[NAME_BYTES];
    char driver[NAME_BYTES];
    char remedy[sizeof reason->remedy];
    snprintf(path, sizeof path, "%s/bus/pci/devices/%s", sysfs, address);
    if (access(path, F_OK)) {
        return tepi_bus_refuse(reason, -ENODEV,
                               "look for the card with lspci -D; where it is not listed, see that "
                               "it is seated and powered, then write 1 to /sys/bus/pci/rescan",
                               "there is no PCI device %s", address);
    }
    link_name(sysfs, address, "iommu_group", group);
    char *end = NULL;
    const long number = strtol(group, &end, 10);
    if (group[0] == '\0' || *end || number < 0 || number > INT_MAX) {
        return tepi_bus_refuse(reason, -EOPNOTSUPP,
                               "switch on VT-d or AMD-Vi in the firmware's set-up, and start the "
                               "kernel with intel_iommu=on (Intel) or amd_iommu=on",
                               "%s has no IOMMU group: this machine runs without an IOMMU",
                               address);
    }
    link_name(sysfs, address, "driver", driver);
    if (strcmp(driver, "vfio-pci") == 0) {
        return (int)number;
    }
    snprintf(remedy, sizeof remedy,
             "bind it: driverctl set-override %s vfio-pci (see docs/vfio.md)", address);
    if (driver[0]) {
        return tepi_bus_refuse(reason, -EBUSY, remedy, "%s is held by the driver %s, not vfio-pci",
                               address, driver);
    }
    return tepi_bus_refuse(reason, -ENXIO, remedy, "%s is not bound to vfio-pci", address);
}

/* Drivers of its own that the kernel lets stand beside VFIO in a group. */
static bool harmless(const char *driver)
{
    return driver[0] == '\0' || strcmp(driver, "vfio-pci") == 0 ||
           strcmp(driver, "pci-stub") == 0 || strcmp(driver, "pcieport") == 0;
}

int tepi_vfio_not_viable(const char *sysfs, const char *address, struct tepi_bus_reason *reason)
{
    char path[PATH_MAX];
    char list[160] = "";
    size_t used = 0;
    snprintf(path, sizeof path, "%s/bus/pci/devices/%s/iommu_group/devices", sysfs, address);
    DIR *folder = opendir(path);
    for (struct dirent *entry = NULL; folder && (entry = readdir(folder));) {
        char driver[NAME_BYTES];
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, address) == 0) {
            continue;
        }
        link_name(sysfs, entry->d_name, "driver", driver);
        if (!harmless(driver)) {
            const int more = snprintf(list + used, sizeof list - used, "%s%.12s (%s)",
                                      used ? ", " : "", entry->d_name, driver);
            used += (size_t)more < sizeof list - used ? (size_t)more : 0;
            list[used] = '\0'; /* what did not fit whole is left out */
        }
    }
    if (folder) {
        closedir(folder);
    }
    return tepi_bus_refuse(reason, -EPERM,
                           "bind them to vfio-pci as well, or put the card into a slot with an "
                           "IOMMU group of its own",
                           "the IOMMU group of %s is in use by %s", address,
                           used ? list : "another user of its devices");
}
