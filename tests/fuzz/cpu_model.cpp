// CPU models from any text, and from a real model with changes: a processor with its VMX, or ModelError.
#include "cpu/cpu.hpp"
#include "vmx/vmx.hpp"

#include <array>
#include <cstddef>
#include <fstream>
#include <iterator>
#include <memory>

using namespace exeunt;

namespace {

class SilentBus final : public IoBus {
    u32 port_read(u16, unsigned) override { return ~u32{0}; }
    void port_write(u16, unsigned, u32) override {}
    u64 mmio_read(u64, unsigned) override { return ~u64{0}; }
    void mmio_write(u64, unsigned, u64) override {}
};

std::string model_text(const char* name) {
    std::ifstream in(std::string(EXEUNT_SOURCE_DIR "/cpu/models/") + name + ".json");
    return {std::istreambuf_iterator<char>(in), {}};
}

void build(const std::string& text) {
    static PhysicalMemory memory{u64{2} << 20};
    static SilentBus bus;
    try {
        const CpuModel model = CpuModel::parse(text, "model");
        const auto cpu = std::make_unique<Cpu>(0, model, memory, bus, 1);
        if (model.has(Feature::VMX)) Vmx{*cpu};
    } catch (const ModelError&) {
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static const std::array<std::string, 3> real{model_text("intel-max"), model_text("amd-max"), model_text("nehalem")};
    if (size == 0) return 0;
    const unsigned choice = data[0] % 4;
    if (choice == 3) {
        build({reinterpret_cast<const char*>(data) + 1, size - 1});
        return 0;
    }
    // Changes: place (two bytes), what to do, and a character.
    std::string text = real[choice];
    for (std::size_t i = 1; i + 4 <= size; i += 4) {
        const std::size_t at = (data[i] | std::size_t{data[i + 1]} << 8) % text.size();
        const char c = static_cast<char>(data[i + 3]);
        switch (data[i + 2] % 3) {
            case 0: text[at] = c; break;
            case 1: text.insert(at, 1, c); break;
            default: text.erase(at, data[i + 3] % 32 + 1u); break;
        }
        if (text.empty()) return 0;
    }
    build(text);
    return 0;
}
