# SPDX-License-Identifier: Apache-2.0
"""The vfio bus on a real PCI device: `edu` behind an IOMMU, in QEMU under Debian's kernel.

`.ci/guest` installs QEMU and fetches the kernel into build/guest.
"""

import io
import lzma
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "build" / "guest"
GUEST = Path(__file__).parent / "vfio" / "guest_edu.c"
EDU = "0000:00:05.0"
MODULES = ("vfio_iommu_type1", "vfio_pci")
SECONDS = 150

INIT = """#!/bin/sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
for module in {modules}; do /bin/busybox insmod /$module.ko || echo "guest: no $module"; done
/bin/guest {edu} 2>&1
echo "guest: exit $?"
/bin/busybox poweroff -f
"""


def kernel_package() -> Path:
    """The newest kernel package in the cache; skips where something is missing."""
    missing = [name for name in ("qemu-system-x86_64", "busybox") if shutil.which(name) is None]
    packages = sorted(CACHE.glob("linux-image-*.deb"), key=lambda path: path.stat().st_mtime)
    if missing or not packages:
        what = ", ".join(missing) or "no kernel package in build/guest"
        pytest.skip(f"missing: {what}; run .ci/guest")
    return packages[-1]


def unpack(package: Path) -> tuple[Path, dict[str, bytes]]:
    """The kernel, and its VFIO modules by name."""
    folder = CACHE / package.stem
    wanted = re.compile(r"/boot/vmlinuz-|/(kernel/drivers/(vfio|iommu)|kernel/virt)/.*\.ko(\.xz)?$")
    if not (folder / "done").exists():
        folder.mkdir(exist_ok=True)
        tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        assert tar.stdout is not None
        with tar.stdout, tarfile.open(fileobj=tar.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile() and wanted.search(member.name):
                    data = archive.extractfile(member)
                    assert data is not None
                    (folder / Path(member.name).name).write_bytes(data.read())
        assert tar.wait() == 0
        (folder / "done").touch()
    modules = {}
    for path in folder.glob("*.ko*"):
        raw = path.read_bytes()
        data_of = lzma.decompress(raw) if path.suffix == ".xz" else raw
        modules[path.name.split(".")[0].replace("-", "_")] = data_of
    return next(folder.glob("vmlinuz-*")), modules


def in_order(modules: dict[str, bytes], names: tuple[str, ...]) -> Iterator[str]:
    """`names` and what they depend on, each after its dependencies; others are built in."""
    seen: set[str] = set()

    def visit(name: str) -> Iterator[str]:
        if name in seen or name not in modules:
            return
        seen.add(name)
        found = re.search(rb"\0depends=([^\0]*)\0", modules[name])
        for dependency in found.group(1).decode().split(",") if found else ():
            yield from visit(dependency.replace("-", "_"))
        yield name

    for name in names:
        yield from visit(name)


def initramfs(files: dict[str, bytes]) -> bytes:
    """A cpio archive (newc) of folders (names that end in /) and programs."""
    out = io.BytesIO()
    for inode, (name, data) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode = 0o040755 if name.endswith("/") else 0o100755
        path = name.rstrip("/").encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        for part in (b"070701" + b"".join(b"%08X" % n for n in fields) + path, data):
            out.write(part + b"\0" * (-len(part) % 4))
    return out.getvalue()


def build_guest(program: Path) -> None:
    driver = ROOT / "device" / "driver"
    sources = [driver / "bus_vfio.c", *sorted(driver.glob("vfio_[!u]*.c"))]
    flags = ["-std=c17", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-static"]
    rooms = [f"-I{ROOT}/device", f"-I{ROOT}/tests/device"]
    subprocess.run(["cc", *flags, *rooms, GUEST, *sources, "-pthread", "-o", program], check=True)


def test_bus_vfio_on_edu(tmp_path: Path) -> None:
    kernel, modules = unpack(kernel_package())
    build_guest(tmp_path / "guest")
    order = list(in_order(modules, MODULES))
    assert set(MODULES) <= set(order)
    busybox = Path(shutil.which("busybox") or "")
    shell = {name: busybox.read_bytes() for name in ("bin/busybox", "bin/sh")}
    archive = {
        **dict.fromkeys(("bin/", "proc/", "sys/", "dev/"), b""),
        **shell,
        "bin/guest": (tmp_path / "guest").read_bytes(),
        "init": INIT.format(modules=" ".join(order), edu=EDU).encode(),
        **{f"{name}.ko": modules[name] for name in order},
    }
    (tmp_path / "initramfs").write_bytes(initramfs(archive))
    command: list[str | Path] = [
        *("qemu-system-x86_64", "-machine", "q35,kernel-irqchip=split", "-cpu", "max", "-m", "512"),
        *("-accel", "tcg", "-display", "none", "-serial", "stdio", "-monitor", "none"),
        *("-no-reboot", "-nic", "none", "-device", "intel-iommu,intremap=on"),
        *("-device", "edu,addr=05.0,dma_mask=0xffffffff"),
        *("-kernel", kernel, "-initrd", tmp_path / "initramfs"),
        *("-append", "console=ttyS0 quiet loglevel=4 intel_iommu=on iommu=pt panic=-1"),
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
        console = (done.stdout + done.stderr).decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        console = (late.stdout or b"").decode(errors="replace") + f"\nno end in {SECONDS} s"
    print(console)
    cases = re.findall(r"CHECK_ENTRY\((\w+)\)", GUEST.read_text())
    passed = re.findall(r"^ok   (\w+)", console, re.M)
    assert passed == cases, f"the guest's console:\n{console}"
    assert "guest: exit 0" in console, f"the guest's console:\n{console}"
