#include "diagnosis/check.hpp"

#include "base/bus.hpp"
#include "cpu/cpu.hpp"
#include "diagnosis/fields.hpp"
#include "svm/vmrun_checks.hpp"
#include "vmx/entry_checks.hpp"

#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <optional>

namespace exeunt {

namespace {

using F = VmcsField;

constexpr u64 memory_bytes = page_size;

/// There is nothing but the VMCS or VMCB.
class NoBus final : public IoBus {
public:
    u64 mmio_read(u64, unsigned) override { return value; }
    void mmio_write(u64, unsigned, u64) override {}
    u32 port_read(u16, unsigned) override { return ~u32{0}; }
    void port_write(u16, unsigned, u32) override {}

    u64 value = 0; ///< what all memory holds
};

// ---- VMCS ---------------------------------------------------------------------------------------

/// Whether all these bits have names in the manuals, so that some processor has them.
bool named(F field, u64 bits) {
    const std::vector<Words> words = field_in_words(field, bits);
    for (const Words& w : words)
        if (w.name.starts_with("bits ")) return false;
    return words.size() == static_cast<std::size_t>(std::popcount(bits));
}

bool depends_on_features(F field) {
    return row_of(field).type == FieldType::control || field == F::guest_cr4 || field == F::host_cr4 ||
           field == F::guest_ia32_debugctl;
}

class VmcsCheck {
public:
    VmcsCheck(const Dump& dump, const CpuModel& model, bool strict)
        : dump_(dump.vmcs), capabilities_(model), strict_(strict), memory_(memory_bytes) {
        memory_.set_bus(bus_);
    }

    DumpCheck run() {
        fill();
        const bool lma = vmcs_[F::primary_vm_exit_controls] & vm_exit::host_address_space_size;
        result_.assumed.push_back(fmt::format(
            "the processor {} in IA-32e mode, as \"host address-space size\" is", lma ? "was" : "was not"));
        const EntryContext context(vmcs_, capabilities_, memory_, lma);
        const std::vector<Violation> with_zeros = violated_rules(context);
        for (const Violation& violation : with_zeros) add(violation, context);
        // What memory holds is not known: a rule that reads it may be broken by ones where zeros do not.
        bus_.value = ~u64{0};
        for (const Violation& violation : violated_rules(context))
            if (violation.check->fields.reads_memory &&
                std::none_of(with_zeros.begin(), with_zeros.end(),
                             [&](const Violation& v) { return v.check == violation.check; }))
                add(violation, context);
        check_pdptes();
        return std::move(result_);
    }

private:
    void fill() {
        for (std::size_t i = 0; i < vmcs_field_count; ++i) {
            const auto field = static_cast<F>(i);
            if (dump_[field]) {
                vmcs_.write(field, *dump_[field], {});
            } else if (field != F::vmcs_link_pointer && row_of(field).type != FieldType::read_only &&
                       capabilities_.exists(field)) {
                result_.missing.emplace_back(row_of(field).name);
            }
        }
        if (!dump_[F::vmcs_link_pointer]) {
            vmcs_.write(F::vmcs_link_pointer, ~u64{0}, {});
            result_.assumed.emplace_back("vmcs_link_pointer is FFFFFFFF_FFFFFFFFH");
        }
    }

    /// Why the dump does not decide this; empty when it does.
    std::string doubt(const Violation& violation, const AllowedBits& bits) const {
        std::string missing;
        const auto look = [&](F field) {
            if (!dump_[field]) missing += (missing.empty() ? "" : ", ") + std::string(row_of(field).name);
        };
        for (const F field : violation.fields) look(field);
        for (const F field : violation.check->fields.depends) look(field);
        if (!missing.empty()) return "the dump does not have " + missing;
        if (violation.check->fields.reads_memory) return "it depends on memory, which the dump does not have";
        if (strict_) return {};
        for (const F field : violation.fields) {
            const u64 value = vmcs_[field], excess = value & ~bits.may;
            if (!bits.restrict_anything() || !depends_on_features(field) || (bits.must & ~value) ||
                !named(field, excess))
                return {};
        }
        return "it depends on the processor: this model does not have these bits, others do (--cpu decides)";
    }

    void add(const Violation& violation, const EntryContext& context) {
        const EntryCheck& check = *violation.check;
        const AllowedBits bits = check.fields.allowed ? check.fields.allowed(context) : AllowedBits{};
        const std::string why_not = doubt(violation, bits);
        std::vector<ExplainedRule>& to = why_not.empty() ? result_.violated : result_.undecided;
        for (const F f : violation.fields)
            add_violation(to, false, {check.id, row_of(f).encoding, vmcs_[f], bits, {}});
        for (const F f : check.fields.depends) {
            ExplainedField field = explain_field(false, {check.id, row_of(f).encoding, vmcs_[f], {}, {}});
            field.condition = true;
            to.back().fields.push_back(std::move(field));
        }
        if (!why_not.empty()) to.back().words += "; not decided: " + why_not;
    }

    /// 26.3.1.6: with EPT the PDPTEs are fields; without it they are in memory.
    void check_pdptes() {
        const bool pae = (vmcs_[F::guest_cr0] & CR0::PG) && (vmcs_[F::guest_cr4] & CR4::PAE) &&
                         !(vmcs_[F::vm_entry_controls] & vm_entry::ia_32e_mode_guest);
        if (!pae) return;
        constexpr std::string_view id = "guest.pdptes.reserved_bits";
        const bool ept = (vmcs_[F::primary_processor_based_vm_execution_controls] &
                          primary::activate_secondary_controls) &&
                         (vmcs_[F::secondary_processor_based_vm_execution_controls] & secondary::enable_ept);
        if (!ept) {
            result_.undecided.push_back(explain_rule(false, id));
            result_.undecided.back().words +=
                "; not decided: they are in memory, which the dump does not have";
            return;
        }
        for (unsigned i = 0; i < 4; ++i) {
            const u64 value = vmcs_.at(F::guest_pdpte0, i);
            if (valid_pdpte(value, capabilities_.physical_bits())) continue;
            add_violation(result_.violated, false,
                          {id, row_of(F::guest_pdpte0).encoding + 2 * i, value, {}, {}});
        }
    }

    const VmcsDump& dump_;
    const VmxCapabilities capabilities_;
    const bool strict_;
    NoBus bus_;
    PhysicalMemory memory_;
    Vmcs vmcs_{Physical{0x1000}};
    DumpCheck result_;
};

// ---- VMCB ---------------------------------------------------------------------------------------

/// Values in words, and a doubt where the dump does not have all that a rule is about.
void add_vmcb_violation(const VmcbDump& dump, const VmrunContext& context, const VmrunCheck& check,
                        DumpCheck& result) {
    std::string missing;
    const auto look = [&](u16 offset) {
        const VMCB::FieldRow& row = *VMCB::find_field(offset);
        if (!dump.has(row)) missing += (missing.empty() ? "" : ", ") + std::string(row.name);
    };
    for (const u16 offset : check.fields.restricted.all()) look(offset);
    for (const u16 offset : check.fields.depends.all()) look(offset);
    std::vector<ExplainedRule>& to = missing.empty() ? result.violated : result.undecided;
    const AllowedBits bits = check.fields.allowed ? check.fields.allowed(context) : AllowedBits{};
    const auto value = [&](u16 offset) { return context.vmcb.get(*VMCB::find_field(offset)); };
    for (const u16 offset : check.fields.restricted.all())
        add_violation(to, true, {check.id, offset, value(offset), bits, {}});
    for (const u16 offset : check.fields.depends.all()) {
        ExplainedField field = explain_field(true, {check.id, offset, value(offset), {}, {}});
        field.condition = true;
        to.back().fields.push_back(std::move(field));
    }
    if (!missing.empty()) to.back().words += "; not decided: the dump does not have " + missing;
}

DumpCheck check_vmcb(const Dump& dump, const CpuModel& model) {
    DumpCheck result;
    PhysicalMemory memory(memory_bytes);
    NoBus bus;
    memory.set_bus(bus);
    Cpu cpu(0, model, memory, bus, 0);
    cpu.control.cr0 = CR0::PE | CR0::PG;
    cpu.control.cr4 = CR4::PAE;
    cpu.control.efer = EFER::LME | EFER::LMA | EFER::SVME;
    result.assumed.emplace_back("the host was in long mode with paging");
    std::array<u8, VMCB::bytes> bytes = dump.vmcb.bytes;
    const VmrunContext context{VmcbView(bytes.data()), cpu};
    for (const VMCB::FieldRow& row : VMCB::field_rows)
        if (!dump.vmcb.has(row)) result.missing.emplace_back(row.name);
    for (const VmrunCheck& check : vmrun_checks())
        if (check.violated(context)) add_vmcb_violation(dump.vmcb, context, check, result);
    return result;
}

} // namespace

DumpCheck check_dump(const Dump& dump, const CpuModel& model, bool strict) {
    return dump.svm ? check_vmcb(dump, model) : VmcsCheck(dump, model, strict).run();
}

} // namespace exeunt
