// vmcs_fuzz [--cases N] [--seed S]: random field vectors through VM entry. Each case takes a VMCS that
// enters, changes a few of its fields with VMWRITE and executes VMLAUNCH or VMRESUME. A refusal must name a
// rule that the predicates of vmcs_predicates* find violated, and break none that comes in an earlier group;
// an entry that is accepted must satisfy all of them. Exit status: 0, or 12 after the first case that does
// not, which is printed.
#include "tests/support/vmx_harness.hpp"
#include "tests/vmx/vmcs_predicates.hpp"

#include "base/random.hpp"
#include "cpu/msrs.hpp"

#define DOCTEST_CONFIG_IMPLEMENT // the harness is the unit tests'
#include <doctest/doctest.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace exeunt::test {

namespace {

using F = VmcsField;

constexpr u64 vmwrite_address = VmxHarness::launch_address + 0x100, vmlaunch_address = vmwrite_address + 0x10,
              vmresume_address = vmwrite_address + 0x20;

const std::span<const Predicate> all_predicates[] = {control_predicates(), host_predicates(),
                                                     guest_predicates(), late_predicates()};

/// A processor in VMX root operation with a VMCS that enters in one mode.
class Machine {
public:
    Machine(Mode mode, bool host32, bool ept) {
        if (host32) {
            t_.host32();
        } else if (mode == Mode::compatibility) {
            t_.set(F::guest_cs_access_rights, (t_.get(F::guest_cs_access_rights) & ~u64{AR::L}) | AR::DB);
        } else {
            t_.guest_mode(mode);
        }
        if (ept) t_.use_ept(6 | 3 << 3 | bit(6));
        for (const u64 region : {VmxHarness::spare_region, VmxHarness::spare_region + 0x1000})
            t_.write(region, t_.vmx.capabilities().revision(), 4);
        t_.write(VmxHarness::spare_region + 0x1000, t_.vmx.capabilities().revision() | Vmcs::shadow_indicator,
                 4);
        fill_msr_area();
        t_.write(vmwrite_address, 0xC1790F, 4);  // vmwrite rax, rcx
        t_.write(vmlaunch_address, 0xC2010F, 4); // vmlaunch
        t_.write(vmresume_address, 0xC3010F, 4); // vmresume
        state_ = t_.cpu;
        start_ = current_values();
        describe();
    }

    /// One case. Empty when all is as it must be, else what is not.
    std::string run(Random& random);
    bool usable() const { return t_.vmx.operating(); }
    /// The rule that refused the last case.
    std::string_view refusal() const { return t_.vmx.last_refusal(); }
    unsigned entered = 0, refused = 0;

private:
    std::array<u64, vmcs_field_count> current_values() {
        std::array<u64, vmcs_field_count> values;
        for (std::size_t i = 0; i < vmcs_field_count; ++i) values[i] = (*t_.vmx.current())[static_cast<F>(i)];
        return values;
    }
    void describe();
    void fill_msr_area();
    void mutate(Random& random);
    void combine(Random& random);
    u64 mutated(Random& random, F field);
    void write_field(F field, u64 value);
    void restore();
    std::string judge(bool was_entered) const;
    std::string explain(std::string what) const;

    VmxHarness t_;
    CpuState state_;
    std::array<u64, vmcs_field_count> start_{};
    VmcsImage image_;
    std::vector<F> fields_;  ///< those that this processor has and VMWRITE reaches
    std::vector<F> changed_; ///< by the case under way
};

/// What RDMSR and CPUID say.
void Machine::describe() {
    const auto rdmsr = [&](u32 index) {
        const auto value = t_.cpu.msrs->read(t_.cpu, index);
        return value.ok() ? value.value() : 0;
    };
    image_.msr_pin = rdmsr(0x48D);
    image_.msr_proc = rdmsr(0x48E);
    image_.msr_exit = rdmsr(0x48F);
    image_.msr_entry = rdmsr(0x490);
    image_.msr_proc2 = rdmsr(0x48B);
    image_.msr_vmfunc = rdmsr(0x491);
    image_.msr_proc3 = rdmsr(0x492);
    image_.msr_exit2 = rdmsr(0x493);
    image_.misc = rdmsr(0x485);
    image_.cr0_fixed0 = rdmsr(0x486);
    image_.cr0_fixed1 = rdmsr(0x487);
    image_.cr4_fixed0 = rdmsr(0x488);
    image_.cr4_fixed1 = rdmsr(0x489);
    image_.ept_vpid = rdmsr(0x48C);
    image_.efer_bits = EFER::SCE | EFER::LME | EFER::LMA | EFER::NXE;
    image_.debugctl_bits = 0x1803;           // LBR, BTF, and freezing on a PMI
    image_.perf_global_bits = 0x7'0000'000F; // four general and three fixed counters
    image_.physical_bits = t_.model.physical_bits;
    image_.linear_bits = t_.model.has(Feature::LA57) ? 57 : 48;
    image_.revision = static_cast<u32>(rdmsr(0x480)) & 0x7FFF'FFFF;
    image_.lma = t_.cpu.long_mode_active();
    image_.current_vmcs = VmxHarness::vmcs_region;
    image_.memory = &t_.memory;
    for (std::size_t i = 0; i < vmcs_field_count; ++i) {
        const auto field = static_cast<F>(i);
        if (t_.vmx.capabilities().exists(field) && row_of(field).type != FieldType::read_only)
            fields_.push_back(field);
    }
}

/// Sixteen areas of two entries each: the first loads, the second is as it comes.
void Machine::fill_msr_area() {
    constexpr u64 second[][2] = {{0xC000'0082, 0}, {0xC000'0082, u64{1} << 56},
                                 {0xC000'0100, 0}, {0xC000'0101, 0},
                                 {0x800, 0},       {0x8FF, 0},
                                 {0x9B, 0},        {0x79, 0},
                                 {0x8B, 0},        {u64{1} << 32 | 0xC000'0081, 0},
                                 {0x7FF'0000, 0}};
    u64 at = VmxHarness::msr_area;
    for (const auto& entry : second) {
        t_.write(at, 0xC000'0081);
        t_.write(at + 8, 0x1234);
        t_.write(at + 16, entry[0]);
        t_.write(at + 24, entry[1]);
        at += 32;
    }
}

void Machine::write_field(F field, u64 value) {
    Cpu& cpu = t_.cpu;
    if (!image_.lma) { // VMWRITE of 32-bit hosts reaches half a field at a time
        t_.set(field, value);
        return;
    }
    cpu.r[RAX] = row_of(field).encoding;
    cpu.r[RCX] = value;
    cpu.rip = cpu.next_rip = vmwrite_address;
    cpu.step();
}

u64 Machine::mutated(Random& random, F field) {
    const u64 now = (*t_.vmx.current())[field], r = random.next();
    switch (r % 19) {
    case 0: return random.next();
    case 1: return 0;
    case 2: return ~u64{0};
    case 3: return now & (now - 1); // without its lowest bit
    case 4: return now ^ low_mask(static_cast<unsigned>(r >> 8 & 63));
    case 5: return (random.next() & 0xFF'FFFF) & ~u64{0xFFF};
    case 6: return u64{1} << (r >> 8 & 63);
    case 7: return (r >> 8) % 16;
    case 8: return now ^ bit(static_cast<unsigned>(r >> 8 & 31)) ^ bit(static_cast<unsigned>(r >> 16 & 31));
    case 9: return (r & bit(8) ? ~u64{0} : 0) ^ low_mask(44 + static_cast<unsigned>(r >> 16) % 16);
    default:
        return now ^ bit(static_cast<unsigned>(r >> 8 & (row_of(field).width == FieldWidth::w16 ? 15 : 31)));
    }
}

void Machine::mutate(Random& random) {
    changed_.clear();
    const u64 r = random.next();
    for (unsigned n = 1 + static_cast<unsigned>(r % 4); n > 0; --n) {
        const F field = fields_[random.next() % fields_.size()];
        changed_.push_back(field);
        write_field(field, mutated(random, field));
    }
    if (r & 0x100) combine(random);
}

/// What single fields do not lead to: controls together with what they make valid.
void Machine::combine(Random& random) {
    const u64 r = random.next();
    const auto part = [&](unsigned low, u64 limit) { return (r >> low) % limit; };
    const auto also = [&](F field, u64 value) {
        changed_.push_back(field);
        write_field(field, value);
    };
    const auto also_set = [&](F field, u64 bits) { also(field, (*t_.vmx.current())[field] | bits); };
    const auto segment = [](F first, u64 n) { return static_cast<F>(static_cast<u64>(first) + n); };
    const u64 edge = (u64{1} << image_.physical_bits) - 0x1000 + part(40, 3) * 0x800;
    constexpr F areas[][2] = {{F::vm_entry_msr_load_address, F::vm_entry_msr_load_count},
                              {F::vm_exit_msr_load_address, F::vm_exit_msr_load_count},
                              {F::vm_exit_msr_store_address, F::vm_exit_msr_store_count}};
    constexpr F addresses[] = {F::address_of_io_bitmap_a,
                               F::address_of_msr_bitmaps,
                               F::virtual_apic_address,
                               F::pml_address,
                               F::eptp_list_address,
                               F::vmread_bitmap_address,
                               F::vmwrite_bitmap_address,
                               F::virtualization_exception_information_address,
                               F::sub_page_permission_table_pointer,
                               F::apic_access_address,
                               F::posted_interrupt_descriptor_address,
                               F::pid_pointer_table_address};
    switch (r % 21) {
    case 0:
        also(F::vm_entry_interruption_information, 0x8000'0000 | part(8, 0x1000));
        also(F::guest_interruptibility_state, u64{1} << part(20, 5));
        if (r & bit(30)) also_set(F::pin_based_vm_execution_controls, 0x28);
        break;
    case 1:
        also(F::vm_entry_interruption_information, 0x8000'0000 | (r & bit(8) ? 0x202 : 0x40));
        also(F::guest_rflags, r & bit(9) ? 0x202 : 2);
        also(F::guest_interruptibility_state, part(20, 16));
        if (r & bit(30)) also_set(F::pin_based_vm_execution_controls, 0x28);
        break;
    case 15:
        also(F::vm_entry_interruption_information, 0x8000'0B0D ^ part(8, 8));
        also(F::vm_entry_exception_error_code, part(16, 0x2'0000));
        also(F::guest_cs_access_rights, (*t_.vmx.current())[F::guest_cs_access_rights] ^ part(40, 4) << 5);
        also(F::guest_ss_access_rights, (*t_.vmx.current())[F::guest_ss_access_rights] ^ part(40, 4) << 5);
        break;
    case 2:
        also(F::guest_activity_state, part(8, 4));
        also(F::vm_entry_interruption_information, 0x8000'0000 | part(16, 0x1000));
        break;
    case 3:
        also(F::guest_pending_debug_exceptions, r & bit(30) ? part(8, 0x2'0000) : part(8, 2) << 14);
        if (r & bit(31)) also(F::guest_interruptibility_state, part(32, 3));
        if (r & bit(40)) also(F::guest_rflags, part(41, 2) << 8 | part(42, 2) << 9 | 2);
        break;
    case 4: also(F::guest_rflags, (r >> 8 & 0x3F'7FD5) | 2); break;
    case 5: also(F::vmcs_link_pointer, VmxHarness::vmcs_region + part(8, 12) * 0x1000); break;
    case 6:
        also(F::vm_entry_msr_load_address, VmxHarness::msr_area + part(8, 12) * 32);
        also(F::vm_entry_msr_load_count, part(16, 4));
        break;
    case 7:
        also(areas[part(8, 3)][0], edge + 0x7F0);
        also(areas[part(8, 3)][1], part(16, 4) << part(20, 32));
        break;
    case 8:
        also(segment(F::guest_es_access_rights, part(8, 8)), part(16, 0x2'0000));
        also(segment(F::guest_es_selector, part(8, 8)), part(33, 0x100));
        break;
    case 9:
    case 10:
        also_set(F::primary_processor_based_vm_execution_controls,
                 u64{1} << 31 | u64{1} << (20 + part(8, 10)));
        also_set(F::secondary_processor_based_vm_execution_controls, u64{1} << part(16, 26));
        also(addresses[part(24, std::size(addresses))], edge);
        also(F::tpr_threshold, part(52, 20));
        if (r & bit(13)) also(F::vm_function_controls, part(56, 2));
        break;
    case 11:
        also_set(F::guest_cr0, 0x8000'0001);
        also_set(F::guest_cr4, 0x20);
        also(segment(F::guest_pdpte0, part(8, 4)), 0xA001 | part(16, 0x1000));
        break;
    case 12:
        also_set(F::vm_entry_controls, 0x4000);
        also_set(F::primary_vm_exit_controls, 0x8'0000);
        also(r & bit(8) ? F::guest_ia32_pat : F::host_ia32_pat, part(16, 9) << 8 * part(24, 8));
        break;
    case 19: // posted interrupts
        also_set(F::pin_based_vm_execution_controls, 0x81);
        also_set(F::primary_processor_based_vm_execution_controls, 0x8020'0000);
        also_set(F::secondary_processor_based_vm_execution_controls, 0x200);
        also_set(F::primary_vm_exit_controls, 0x8000);
        also(F::posted_interrupt_notification_vector, part(8, 0x180));
        also(F::posted_interrupt_descriptor_address, edge + part(20, 4) * 0x20 + part(24, 2) * 0x1000);
        break;
    case 18: // IPI virtualization
        also_set(F::primary_processor_based_vm_execution_controls, 0x22'0000);
        also(F::tertiary_processor_based_vm_execution_controls, 0x10);
        also(F::pid_pointer_table_address, edge + part(8, 3) * 8);
        also(F::last_pid_pointer_index, part(16, 0x400));
        break;
    case 16:
        also_set(F::vm_entry_controls, r & bit(6) ? 0x40'0000 : 0x2000);
        also_set(F::primary_vm_exit_controls, r & bit(5) ? 0x1000 : 0);
        also(F::guest_ia32_perf_global_ctrl, u64{1} << part(12, 40));
        also(F::host_ia32_perf_global_ctrl, u64{1} << part(20, 40));
        if (r & bit(4)) also_set(F::primary_vm_exit_controls, 0x2000'0000);
        also(F::host_ia32_pkrs, u64{1} << part(30, 36));
        also(F::guest_ia32_pkrs, part(8, u64{1} << part(40, 40)));
        if (r & bit(7))
            also(F::primary_vm_exit_controls, t_.get(F::primary_vm_exit_controls) & ~u64{0x20'0200});
        break;
    case 13:
        also(F::guest_ldtr_access_rights, 0x82 | (r & bit(8) ? 0x8000 : 0));
        also(F::guest_ldtr_limit, low_mask(static_cast<unsigned>(part(16, 33))) - part(32, 2));
        break;
    case 17:
        also_set(F::primary_processor_based_vm_execution_controls, 0x8002'0000 | part(8, 4) << 20);
        also(F::secondary_processor_based_vm_execution_controls, part(16, 0x400) & 0x311);
        also(F::tertiary_processor_based_vm_execution_controls, part(26, 8) ? part(29, 2) << 4 : 0x20);
        also_set(F::pin_based_vm_execution_controls, part(30, 2) << 7 | part(31, 4) % 3);
        if (r & bit(33)) also_set(F::primary_vm_exit_controls, 0x8000);
        also(addresses[8 + part(34, 3)],
             part(36, 2) ? (u64{1} << image_.physical_bits) - part(37, 16) * 8 : u64{VmxHarness::pml});
        also(F::last_pid_pointer_index, part(41, 0x10));
        also(F::posted_interrupt_notification_vector, part(45, 0x200));
        break;
    case 14:
        also_set(F::vm_entry_controls, 4);
        also(F::guest_ia32_debugctl, part(8, 8));
        also(F::guest_dr7, 0x400 | part(16, 2) << 32);
        break;
    default:
        also_set(F::primary_processor_based_vm_execution_controls, 0x8020'0000);
        also(F::virtual_apic_address, part(8, 4) ? u64{VmxHarness::virtual_apic} : edge);
        also(F::tpr_threshold, part(16, 20));
        break;
    }
}

/// The processor and the VMCS as they were before the case.
void Machine::restore() {
    Cpu& cpu = t_.cpu;
    Vmcs& vmcs = *t_.vmx.current();
    if (cpu.in_guest) {
        vmcs.put(F::vm_exit_msr_store_count, 0);
        vmcs.put(F::vm_exit_msr_load_count, 0);
        // The host's state is put back below; what the case made of its fields is not to be loaded.
        for (std::size_t i = 0; i < vmcs_field_count; ++i)
            if (vmcs_field_rows[i].type == FieldType::host) vmcs.write(static_cast<F>(i), start_[i], {});
        vmcs.write(F::primary_vm_exit_controls, start_[static_cast<std::size_t>(F::primary_vm_exit_controls)],
                   {});
        vmcs.derived.vm_exit = vmcs[F::primary_vm_exit_controls];
        (void)t_.vmx.exit({.reason = ExitReason::external_interrupt});
    }
    if (!usable()) return;
    for (std::size_t i = 0; i < vmcs_field_count; ++i)
        if (vmcs[static_cast<F>(i)] != start_[i]) vmcs.write(static_cast<F>(i), start_[i], {});
    static_cast<CpuState&>(cpu) = state_;
    cpu.mmu.flush_all();
    cpu.mode_changed();
    cpu.context_changed(false);
}

std::string Machine::explain(std::string what) const {
    for (const F field : changed_) {
        char text[128];
        std::snprintf(text, sizeof text, "\n  %s = %llXH", std::string(row_of(field).name).c_str(),
                      static_cast<unsigned long long>(image_[field]));
        what += text;
    }
    return what;
}

std::string Machine::judge(bool was_entered) const {
    const std::string refusal(t_.vmx.last_refusal());
    bool named = false;
    PredicateGroup group{};
    for (const auto predicates : all_predicates)
        for (const Predicate& p : predicates)
            if (p.id == refusal) named = true, group = p.group;
    if (!was_entered && !named) return explain("a refusal without a predicate: \"" + refusal + "\"");
    for (const auto predicates : all_predicates)
        for (const Predicate& p : predicates) {
            const bool must_hold =
                was_entered ||
                (p.group < group && !(p.group == PredicateGroup::controls && group == PredicateGroup::host));
            if (!must_hold && p.id != refusal) continue;
            const bool holds = p.holds(image_);
            if (was_entered && !holds) return explain("entered in spite of " + std::string(p.id));
            if (p.id == refusal && holds) return explain("refused by " + refusal + ", which holds");
            if (p.id != refusal && !holds)
                return explain("refused by " + refusal + ", but " + std::string(p.id) + " comes first");
        }
    return {};
}

std::string Machine::run(Random& random) {
    Cpu& cpu = t_.cpu;
    mutate(random);
    image_.value = current_values();
    const unsigned entries = t_.witness.entries;
    cpu.rip = cpu.next_rip = t_.vmx.current()->launched() ? vmresume_address : vmlaunch_address;
    cpu.step();
    const bool was_entered = t_.witness.entries > entries;
    ++(was_entered ? entered : refused);
    std::string wrong = judge(was_entered);
    if (usable()) restore();
    return wrong;
}

std::unique_ptr<Machine> make_machine(unsigned which) {
    constexpr struct {
        Mode mode;
        bool host32, ept;
    } kinds[] = {{Mode::long64, false, false},      {Mode::long64, false, true},
                 {Mode::protected32, false, false}, {Mode::real, false, false},
                 {Mode::v8086, false, false},       {Mode::compatibility, false, false},
                 {Mode::protected32, true, false}};
    const auto& kind = kinds[which % std::size(kinds)];
    return std::make_unique<Machine>(kind.mode, kind.host32, kind.ept);
}

u64 number(const char* text) {
    u64 value = 0;
    const auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
    if (error != std::errc{} || *end != '\0') {
        std::fprintf(stderr, "vmcs_fuzz: \"%s\": expected a number\n", text);
        std::exit(2);
    }
    return value;
}

int fuzz(int count, char** arguments) {
    static doctest::Context context;
    context.setAsDefaultForAssertsOutOfTestCases();
    u64 cases = 200'000, seed = 1;
    for (int i = 1; i + 1 < count; i += 2) {
        const std::string option = arguments[i];
        if (option == "--cases") cases = number(arguments[i + 1]);
        if (option == "--seed") seed = number(arguments[i + 1]);
    }
    constexpr u64 cases_per_machine = 5000;
    u64 entered = 0, refused = 0;
    std::unique_ptr<Machine> machine;
    std::set<std::string_view> unseen; // rules that have refused nothing yet
    for (const auto predicates : all_predicates)
        for (const Predicate& p : predicates) unseen.insert(p.id);
    unseen.erase("controls.eptp.accessed_dirty"); // intel-max has the flags
    unseen.erase("host.address_space.guest");     // another rule always comes first
    for (u64 i = 0; i < cases; ++i) {
        if (i % cases_per_machine == 0 || !machine->usable()) {
            if (machine) entered += machine->entered, refused += machine->refused;
            machine = make_machine(static_cast<unsigned>(i / cases_per_machine));
        }
        Random random(seed * 0x1'0000'0001 + i);
        const std::string wrong = machine->run(random);
        unseen.erase(machine->refusal());
        if (wrong.empty()) continue;
        std::printf("case %llu of seed %llu: %s\n", static_cast<unsigned long long>(i),
                    static_cast<unsigned long long>(seed), wrong.c_str());
        return 12;
    }
    if (machine) entered += machine->entered, refused += machine->refused;
    std::printf("%llu cases: %llu entered, %llu refused\n", static_cast<unsigned long long>(cases),
                static_cast<unsigned long long>(entered), static_cast<unsigned long long>(refused));
    for (const std::string_view id : unseen) std::printf("never refused by %s\n", std::string(id).c_str());
    return cases >= 1'000'000 && !unseen.empty() ? 12 : 0;
}

} // namespace

} // namespace exeunt::test

int main(int count, char** arguments) { return exeunt::test::fuzz(count, arguments); }
