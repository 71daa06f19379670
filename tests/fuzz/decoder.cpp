// The decoder on any bytes, in each mode, for several models: an instruction that lies within the bytes, or none.
#include "base/ensure.hpp"
#include "cpu/decoder.hpp"
#include "cpu/no_virtualization.hpp"

#include <algorithm>
#include <cstddef>

using namespace exeunt;

namespace {

struct Subject {
    CpuModel model;
    Decoder decoder{model};
    explicit Subject(const char* name) : model(CpuModel::load(name)) {}
};

void check(const Subject& subject, CodeMode mode, std::span<const u8> bytes) {
    static const NoVirtualization none;
    Insn insn;
    const Decoder::Status status = subject.decoder.decode(mode, bytes, none, insn);
    if (status == Decoder::Status::more) ENSURE(bytes.size() < 15);
    if (status != Decoder::Status::ok) return;
    ENSURE(insn.length >= 1 && insn.length <= 15 && insn.length <= bytes.size());
    ENSURE(std::equal(insn.bytes.begin(), insn.bytes.begin() + insn.length, bytes.begin()));
    ENSURE(insn.operand_count <= insn.operand.size());
    ENSURE(insn.operand_size == 1 || insn.operand_size == 2 || insn.operand_size == 4 || insn.operand_size == 8);
    ENSURE(insn.address_size == 2 || insn.address_size == 4 || insn.address_size == 8);
    for (unsigned i = 0; i < insn.operand_count; ++i)
        if (insn.operand[i].kind == OperandKind::gpr) ENSURE(insn.operand[i].number < (insn.operand[i].high_byte ? 4 : 16));
    ENSURE(insn.memory.base <= MemoryOperand::rip_register && insn.memory.index <= MemoryOperand::no_register);
    ENSURE(insn.memory.scale <= 3);
    // What follows an instruction does not change it, and nothing shorter is one.
    Insn again;
    ENSURE(subject.decoder.decode(mode, bytes.first(insn.length), none, again) == status);
    ENSURE(again.length == insn.length && again.mnemonic == insn.mnemonic);
    if (insn.length > 1)
        ENSURE(subject.decoder.decode(mode, bytes.first(insn.length - 1u), none, again) == Decoder::Status::more);
    disassemble(mode, bytes.first(insn.length), 0xFFFF'FFFF'FFFF'FFF0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static const Subject subjects[] = {Subject("intel-max"), Subject("amd-max")};
    const std::span<const u8> bytes{data, size};
    for (const Subject& subject : subjects)
        for (const CodeMode mode : {CodeMode::real16, CodeMode::protected16, CodeMode::protected32, CodeMode::long64})
            check(subject, mode, bytes);
    return 0;
}
