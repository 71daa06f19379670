// One case of the differential tests: an instruction, the state that it starts from, and what became of it.
//
// Memory is the same in exeunt and in every oracle: `data` (two pages to read and write, one to read only; nothing
// around them), and `code`. In real-address mode data is what the segments reach: 64 KiB from `data` on, with a base
// 16 bytes further for each of DS, ES, SS, FS, GS.
#pragma once

#include "cpu/decoder.hpp"
#include "cpu/instructions.hpp"
#include "cpu/state.hpp"

#include <array>
#include <string>
#include <vector>

namespace exeunt::test {

enum class CaseMode : u8 { real16, protected32, long64 };

namespace place {
inline constexpr u64 data = 0x2'0000, read_only = 0x2'2000, data_end = 0x2'3000;
inline constexpr u64 real_data_end = 0x3'1000;  ///< of data in real-address mode
inline constexpr u64 code = 0x5'0000, code_bytes = 0x1000;
inline constexpr u64 fs_base = 0x100, gs_base = 0x200;  ///< in 64-bit mode
}  // namespace place

constexpr CodeMode code_mode(CaseMode mode) {
    return mode == CaseMode::real16 ? CodeMode::real16
           : mode == CaseMode::protected32 ? CodeMode::protected32
                                           : CodeMode::long64;
}
constexpr u64 data_bytes(CaseMode mode) {
    return (mode == CaseMode::real16 ? place::real_data_end : place::data_end) - place::data;
}
/// The base of a segment that is not flat.
constexpr u64 segment_base(CaseMode mode, Seg seg) {
    if (mode == CaseMode::real16) {
        constexpr u64 bases[] = {place::data + 0x10, place::code, place::data + 0x20,
                                 place::data,        place::data + 0x30, place::data + 0x40};
        return bases[static_cast<unsigned>(seg)];
    }
    if (mode == CaseMode::protected32) return 0;
    return seg == Seg::FS ? place::fs_base : seg == Seg::GS ? place::gs_base : 0;
}

/// The registers that a user program sees.
struct Registers {
    u64 r[16] = {};
    u64 rip = 0;
    u64 rflags = RFLAGS::FIXED1;
    u64 vector[16][4] = {};
    u32 mxcsr = 0x1F80;
    X87State x87;
};

struct Case {
    CaseMode mode = CaseMode::long64;
    std::array<u8, 15> bytes{};
    Insn insn;
    Registers before;
    u32 patch_at = 0;  ///< where in data the memory operand is, and its value
    std::array<u8, 64> patch{};
};

/// How an instruction ended.
struct Fault {
    static constexpr int none = -1;
    static constexpr int memory = -2;  ///< #PF, or an address that is not canonical: the oracle does not tell them apart
    static constexpr int any = -3;     ///< some fault: the oracle does not say which
    static constexpr int unmodelled = -4;
    int vector = none;
    u32 error = 0;
    u64 address = 0;  ///< #PF
};

struct Outcome {
    Registers after;
    Fault fault;
};

/// What an oracle reports, and so what can be compared.
struct Reported {
    bool x87 = false;
    bool error_codes = false;
    bool state_after_fault = false;
};

/// The places in which two outcomes differ, e.g. {"rax", "CF", "memory", "fault"}.
using Differences = std::vector<std::string>;

/// Compares all but memory. `undefined`: flags that the manual leaves undefined.
Differences compare(const Outcome& ours, const Outcome& theirs, const Reported& reported, u64 undefined);
std::string register_name(unsigned number, CaseMode mode);
/// Disassembly, state before and both states after, a mark where they differ.
std::string report(const Case& c, const Outcome& ours, const Outcome& theirs, const Differences& differences);
std::string fault_name(const Fault& fault);

}  // namespace exeunt::test
