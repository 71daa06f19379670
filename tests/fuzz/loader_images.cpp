// The loaders (bzImage, multiboot 1 and 2, PVH, ELF) on any bytes: an entry state, or BadInput, and nothing else.
#include "machine/loader.hpp"

#include <cstddef>
#include <memory>

using namespace exeunt;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    // The memory is kept: what an earlier image left behind is what a reset leaves, too.
    static const auto memory = std::make_unique<PhysicalMemory>(u64{64} << 20);
    static const auto map = memory_map(memory->low_ram_bytes(), memory->high_ram_bytes());
    // The last bytes are the initrd, so that one input has both.
    const std::size_t initrd_bytes = size > 16 ? data[size - 1] % 16 : 0;
    BootImages images{{"kernel", {data, size - initrd_bytes}}, {}, "console=ttyS0"};
    if (initrd_bytes != 0) images.initrds.push_back({"initrd", {data + size - initrd_bytes, initrd_bytes}});
    try {
        load_images(images, *memory, map, 0xF'0000);
    } catch (const BadInput&) {
    }
    return 0;
}
