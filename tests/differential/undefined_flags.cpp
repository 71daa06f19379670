// Which flags of an instruction are not compared: the table undefined_flags.inc.
#include "tests/differential/generator.hpp"

#include <Zydis/Zydis.h>

namespace exeunt::test {

namespace {

enum class When : u8 { always, nonzero, not_one, beyond, too_far };

struct Row {
    u16 mnemonic;
    u64 flags;
    When when;
};

const std::vector<Row>& rows() {
    using namespace RFLAGS;
    static const std::vector<Row> list = {
#define UNDEFINED(mnemonic, flags, when) {ZYDIS_MNEMONIC_##mnemonic, flags, When::when},
#include "tests/differential/undefined_flags.inc"
    };
    return list;
}

/// The count of a shift, masked as the instruction does.
u64 shift_count(const Case& c) {
    const Insn& insn = c.insn;
    const Operand& last = insn.operand[insn.operand_count - 1];
    u64 count = 1;  // D0H, D1H
    if (last.kind == OperandKind::immediate)
        count = insn.immediate;
    else if (insn.operand_count > 1 && last.kind == OperandKind::gpr)
        count = c.before.r[last.number];
    return count & (insn.operand[0].bytes == 8 ? 63 : 31);
}

bool applies(const Case& c, When when) {
    if (when == When::always) return true;
    const u64 count = shift_count(c), size = 8u * c.insn.operand[0].bytes;
    switch (when) {
        case When::nonzero: return count != 0;
        case When::not_one: return count > 1;
        case When::beyond: return count >= size;
        case When::too_far: return count > size;
        case When::always: break;
    }
    return true;
}

}  // namespace

u64 undefined_flags(const Case& c) {
    u64 flags = 0;
    for (const Row& row : rows())
        if (row.mnemonic == c.insn.mnemonic && applies(c, row.when)) flags |= row.flags;
    return flags;
}

bool undefined_result(const Case& c) {
    switch (c.insn.mnemonic) {
        case ZYDIS_MNEMONIC_SHLD:
        case ZYDIS_MNEMONIC_SHRD: return applies(c, When::too_far);
        // BSWAP of a 16-bit register: SDM 2A BSWAP.
        case ZYDIS_MNEMONIC_BSWAP: return c.insn.operand_size == 2;
        default: return false;
    }
}

}  // namespace exeunt::test
