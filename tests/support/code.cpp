#include "tests/support/code.hpp"

#include <Zydis/Zydis.h>
#include <sstream>
#include <stdexcept>

namespace exeunt::test {

Code code(std::string_view hex, std::string_view disassembly) {
    Code result{{}, std::string(disassembly)};
    std::istringstream in{std::string(hex)};
    for (std::string byte; in >> byte;) {
        std::size_t used = 0;
        const unsigned long value = std::stoul(byte, &used, 16);
        if (used != byte.size() || byte.size() != 2) throw std::invalid_argument("not a byte in hexadecimal: " + byte);
        result.bytes.push_back(static_cast<u8>(value));
    }
    return result;
}

std::string disassemble_all(CodeMode mode, std::span<const u8> bytes, u64 address) {
    static constexpr ZydisMachineMode machines[] = {ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_MACHINE_MODE_LEGACY_16,
                                                    ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    std::string text;
    while (!bytes.empty()) {
        ZydisDisassembledInstruction one;
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(machines[static_cast<unsigned>(mode)], address, bytes.data(),
                                                bytes.size(), &one)))
            return text + "(not an instruction)";
        if (!text.empty()) text += "; ";
        text += one.text;
        bytes = bytes.subspan(one.info.length);
        address += one.info.length;
    }
    return text;
}

}  // namespace exeunt::test
