// Page-modification logging: the log that the EPT walk fills. SDM 3C 28.2.5 "Page-Modification Logging".
#include "vmx/vmx.hpp"

namespace exeunt {

namespace {
constexpr u64 last_entry = 511;
}

bool Vmx::Log::full() const { return vmx_.field(VmcsField::pml_index) > last_entry; }

/// The index counts down and ends at FFFFH, which is "full".
void Vmx::Log::add(GuestPhysical page) {
    const u64 index = vmx_.field(VmcsField::pml_index);
    vmx_.cpu_.memory.store<u64>(Physical{vmx_.field(VmcsField::pml_address) + 8 * index}, page.value);
    vmx_.current_->put(VmcsField::pml_index, (index - 1) & 0xFFFF);
}

} // namespace exeunt
