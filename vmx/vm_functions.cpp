// VM functions. SDM 3C 25.5.5 "VM Functions".
#include "vmx/vmx.hpp"

namespace exeunt {

using F = VmcsField;

namespace {
constexpr u64 eptp_switching = 0, functions = 64, list_entries = 512;
}

/// Whether VM entry would accept this EPT pointer.
bool Vmx::valid_eptp(u64 eptp) const {
    const u64 type = eptp & EPTP::memory_type, length = extract(eptp, 5, 3);
    using namespace EPT_VPID_CAP;
    const bool type_ok = (type == 0 && capabilities_.ept_vpid(uncacheable)) ||
                         (type == 6 && capabilities_.ept_vpid(EPT_VPID_CAP::write_back));
    const bool length_ok =
        (length == 3 && capabilities_.ept_vpid(walk_4)) || (length == 4 && capabilities_.ept_vpid(walk_5));
    const bool flags_ok = !(eptp & EPTP::accessed_dirty) || capabilities_.ept_vpid(accessed_dirty);
    return type_ok && length_ok && flags_ok && extract(eptp, 11, 7) == 0 &&
           (eptp >> capabilities_.physical_bits()) == 0;
}

/// 25.5.5.2 "General Operation of the VMFUNC Instruction", 25.5.5.3 "EPTP Switching". At any CPL.
Result<void> Vmx::vmfunc(const Insn& insn) {
    const u64 function = cpu_.gpr(RAX, 4);
    if (!cpu_.in_guest || !(secondary() & secondary::enable_vm_functions) || function >= functions)
        return undefined_opcode();
    const u64 index = cpu_.gpr(RCX, 4);
    if (!test_bit(current_->derived.vm_function, static_cast<unsigned>(function)) ||
        function != eptp_switching || index >= list_entries)
        return instruction_exit(insn, ExitReason::vmfunc);
    const u64 eptp = cpu_.memory.load<u64>(Physical{field(F::eptp_list_address) + 8 * index});
    if (!valid_eptp(eptp)) return instruction_exit(insn, ExitReason::vmfunc);
    current_->put(F::ept_pointer, eptp);
    if (secondary() & secondary::ept_violation_ve) current_->put(F::eptp_index, index);
    ept_.set_pointer(eptp);
    cpu_.guest_tlb_key.second_level_root = EPTP::tag(eptp);
    cpu_.context_changed(false);
    return {};
}

} // namespace exeunt
