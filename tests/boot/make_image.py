#!/usr/bin/env python3
"""Kernel and initrd of the boot test.

Fetches Debian 12's kernel and busybox-static with apt (as files; nothing is installed) and packs an initrd
from busybox, the kernel's KVM modules, kvm_vmm and tests/boot/init. The same inputs give the same bytes.

Output in DIR: vmlinuz (Debian's bzImage), vmlinux (the ELF image inside it, with a PVH entry), initrd, and
manifest.txt with versions and SHA-256 sums. What is there already is not fetched again.
"""
import argparse
import hashlib
import lzma
import re
import stat
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
META_PACKAGE = "linux-image-amd64"
VENDOR_MODULES = ("kvm-intel", "kvm-amd")


def fail(message):
    sys.exit(f"make_image.py: {message}")


def run(*command, cwd=None):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if result.returncode:
        fail(f"{' '.join(command)}: {(result.stderr or result.stdout).strip().splitlines()[-1:]}")
    return result.stdout


def kernel_package(downloads):
    """The package that linux-image-amd64 stands for at present; the one that was fetched before, if any."""
    before = sorted(path.parent.name for path in downloads.glob("linux-image-*/.unpacked"))
    if before:
        return before[-1]
    depends = run("apt-cache", "depends", META_PACKAGE)
    match = re.search(r"Depends: (linux-image-\d\S*-amd64)$", depends, re.MULTILINE)
    if not match:
        fail(f"{META_PACKAGE} depends on no concrete kernel package; is Debian in the apt sources?")
    return match.group(1)


def unpacked(package, name, downloads):
    """The directory in which a package is unpacked; fetches it when there is none."""
    tree = downloads / name
    done = tree / ".unpacked"
    if not done.exists():
        run("apt-get", "download", package, cwd=downloads)
        archives = sorted(downloads.glob(f"{package.split(':')[0]}_*.deb"))
        if not archives:
            fail(f"apt-get download {package} left no archive")
        run("dpkg-deb", "-x", str(archives[-1]), str(tree))
        done.write_text(archives[-1].name + "\n")
        archives[-1].unlink()
    return tree


# ---- kernel ----

def extract_vmlinux(bzimage):
    """The ELF image in a bzImage (Documentation/arch/x86/boot.rst: payload_offset, payload_length)."""
    setup_sectors = bzimage[0x1F1] or 4
    code = (setup_sectors + 1) * 512
    offset = code + int.from_bytes(bzimage[0x248:0x24C], "little")
    length = int.from_bytes(bzimage[0x24C:0x250], "little")
    payload = bzimage[offset:offset + length]
    if payload[:6] != b"\xfd7zXZ\0":
        return None  # another compression: bzImage only
    return lzma.LZMADecompressor().decompress(payload)


# ---- modules ----

def module_files(tree):
    return {path.name.removesuffix(".ko"): path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}


def dependencies(path):
    """What the module's .modinfo names after "depends="."""
    match = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
    names = match.group(1).decode().split(",") if match else []
    return [name for name in names if name]


def load_order(name, files, order):
    """Appends a module behind the modules it needs."""
    spelling = {key.replace("-", "_"): key for key in files}
    key = spelling.get(name.replace("-", "_"))
    if key is None:
        fail(f"the kernel package has no module {name}")
    for dependency in dependencies(files[key]):
        load_order(dependency, files, order)
    if key not in order:
        order.append(key)
    return order


def modules(tree):
    """Path in the initrd -> contents. Modules of one vendor only are in the vendor's folder."""
    files = module_files(tree)
    common = load_order("kvm", files, [])
    content = {f"modules/common/{i:02}-{name}.ko": files[name].read_bytes() for i, name in enumerate(common)}
    for vendor in VENDOR_MODULES:
        own = [name for name in load_order(vendor, files, []) if name not in common]
        for i, name in enumerate(own):
            content[f"modules/{vendor}/{i:02}-{name}.ko"] = files[name].read_bytes()
    return content


# ---- initrd ----

def cpio_entry(number, name, mode, data=b"", device=(0, 0)):
    """One entry of a cpio archive in "newc" format, owned by root, dated 0."""
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4)


def initrd(files):
    folders = {str(parent) for path in files for parent in Path(path).parents} - {"."}
    folders |= {"bin", "dev", "proc", "sys", "tmp"}
    entries = [(folder, stat.S_IFDIR | 0o755, b"", (0, 0)) for folder in sorted(folders)]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))
    for path in sorted(files):
        executable = path.startswith("bin/") or path == "init"
        entries.append((path, stat.S_IFREG | (0o755 if executable else 0o644), files[path], (0, 0)))
    archive = b"".join(cpio_entry(i + 1, *entry) for i, entry in enumerate(entries))
    archive += cpio_entry(0, "TRAILER!!!", 0)
    return archive + bytes(-len(archive) % 512)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kvm-vmm", type=Path, required=True, metavar="FILE", help="static program to run")
    arguments = parser.parse_args()
    if not arguments.kvm_vmm.is_file():
        fail(f"{arguments.kvm_vmm}: no such file; build the target `guests` first")
    downloads = arguments.out / "packages"
    downloads.mkdir(parents=True, exist_ok=True)

    package = kernel_package(downloads)
    kernel = unpacked(package, package, downloads)
    busybox = unpacked("busybox-static:amd64", "busybox-static", downloads)
    bzimage = next(kernel.glob("boot/vmlinuz-*")).read_bytes()

    files = {"init": (HERE / "init").read_bytes(), "bin/kvm_vmm": arguments.kvm_vmm.read_bytes(),
             "bin/busybox": next(busybox.glob("**/bin/busybox")).read_bytes()}
    files |= modules(kernel)
    outputs = {"vmlinuz": bzimage, "vmlinux": extract_vmlinux(bzimage), "initrd": initrd(files)}
    manifest = [(tree / ".unpacked").read_text().strip() for tree in (kernel, busybox)]
    for name, data in outputs.items():
        if data is not None:
            (arguments.out / name).write_bytes(data)
            manifest.append(f"{hashlib.sha256(data).hexdigest()}  {name}")
    (arguments.out / "manifest.txt").write_text("\n".join(manifest) + "\n")
    print("\n".join(manifest))


if __name__ == "__main__":
    main()
