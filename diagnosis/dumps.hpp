// Reading the VMCS and VMCB dumps that other hypervisors print, and our own JSON.
//
// Understood: Linux's KVM (kvm_intel's dump_vmcs with dump_invalid_vmcs=1, kvm_amd's dump_vmcb with
// dump_invalid_vmcb=1), Xen (the dump after a failed entry, and debug key `v`), out of dmesg, syslog, `xl
// dmesg` or a serial line, with whatever these write in front of each line; JSON {"vmcs": {"guest_cr0":
// "0x..."}} or {"vmcb": ...}. Of several dumps in one file the first one is read.
#pragma once

#include "svm/vmcb.hpp"
#include "vmx/vmcs_fields.hpp"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace exeunt {

struct VmcsDump {
    std::array<std::optional<u64>, vmcs_field_count> field; ///< what the dump has

    std::optional<u64>& operator[](VmcsField f) { return field[static_cast<std::size_t>(f)]; }
    const std::optional<u64>& operator[](VmcsField f) const { return field[static_cast<std::size_t>(f)]; }
};

struct VmcbDump {
    std::array<u8, VMCB::bytes> bytes{};
    std::array<bool, VMCB::bytes> known{};

    void put(unsigned offset, unsigned count, u64 value);
    /// Whether the dump has all bytes of a field.
    bool has(const VMCB::FieldRow& row) const;
};

struct Dump {
    std::string source; ///< "KVM", "Xen", "JSON"
    bool svm = false;
    VmcsDump vmcs;
    VmcbDump vmcb;
    unsigned first_line = 1; ///< where it begins
    unsigned fields = 0;     ///< numbers that were read
};

/// `file` names the input in errors. Throws BadInput with line and what was expected.
Dump read_dump(std::string_view text, const std::string& file);
/// The same as JSON that read_dump() reads.
std::string dump_as_json(const Dump& dump);

} // namespace exeunt
