// Reading the dumps of KVM and Xen, and our JSON: what stands in them is read, what is damaged is refused by
// line.
#include "diagnosis/dumps.hpp"

#include "base/bad_input.hpp"
#include "base/random.hpp"
#include "diagnosis/fields.hpp"
#include "tests/diagnosis/dump_texts.hpp"

#include <doctest/doctest.h>

using namespace exeunt;
using namespace exeunt::test;
using F = VmcsField;

namespace {

u64 value(const Dump& dump, F field) {
    REQUIRE(dump.vmcs[field].has_value());
    return *dump.vmcs[field];
}
u64 value(const Dump& dump, const char* name) {
    const VMCB::FieldRow* row = find_vmcb_field(name);
    REQUIRE(row != nullptr);
    CHECK(dump.vmcb.has(*row));
    std::array<u8, VMCB::bytes> bytes = dump.vmcb.bytes;
    return VmcbView(bytes.data()).get(*row);
}

std::string refused(const std::string& text) {
    try {
        (void)read_dump(text, "f");
    } catch (const BadInput& error) { return error.what(); }
    return {};
}

} // namespace

TEST_CASE("dump of a VMCS by KVM: fields of all three parts, behind dmesg's time and the module's name") {
    const Dump dump = read_dump(kvm_vmcs, "f");
    CHECK(dump.source == "KVM");
    CHECK(!dump.svm);
    CHECK(dump.first_line == 2);
    CHECK(value(dump, F::guest_cr0) == 0x8005'0033);
    CHECK(value(dump, F::cr0_read_shadow) == 0x8005'0031);
    CHECK(value(dump, F::cr4_guest_host_mask) == 0xFFFF'FFFF'FFFF'F871);
    CHECK(value(dump, F::guest_rip) == 0xFFFF'FFFF'8100'1234);
    CHECK(value(dump, F::host_rip) == 0xFFFF'FFFF'C0A0'1230);
    CHECK(value(dump, F::guest_ia32_sysenter_esp) == 0xFFFF'FE00'0000'2000);
    CHECK(value(dump, F::guest_ia32_sysenter_cs) == 0x10);
    CHECK(value(dump, F::guest_ia32_sysenter_eip) == 0xFFFF'FFFF'8180'0A10);
    CHECK(value(dump, F::host_ia32_sysenter_eip) == 0xFFFF'FFFF'8200'1540);
    CHECK(value(dump, F::guest_cs_access_rights) == 0xA09B);
    CHECK(value(dump, F::guest_tr_limit) == 0x4087);
    CHECK(value(dump, F::guest_gdtr_limit) == 0x7F);
    CHECK(value(dump, F::guest_idtr_base) == 0xFFFF'FE00'0000'0000);
    CHECK(value(dump, F::host_tr_selector) == 0x40);
    CHECK(value(dump, F::host_cs_selector) == 0x10);
    CHECK(value(dump, F::primary_processor_based_vm_execution_controls) == 0x9421'E1F2);
    CHECK(value(dump, F::pin_based_vm_execution_controls) == 0x3F);
    CHECK(value(dump, F::vm_entry_controls) == 0x93FF);
    CHECK(value(dump, F::vm_entry_exception_error_code) == 6);
    CHECK(value(dump, F::vm_exit_instruction_length) == 3);
    CHECK(value(dump, F::exit_reason) == 0x8000'0021);
    CHECK(value(dump, F::ept_pointer) == 0x1'0A00'001E);
    CHECK(value(dump, F::virtual_processor_identifier) == 1);
    CHECK(!dump.vmcs[F::vmcs_link_pointer].has_value());
}

TEST_CASE("dump of a VMCS by Xen: segments in columns, dates, names behind addresses") {
    const Dump dump = read_dump(xen_vmcs, "f");
    CHECK(dump.source == "Xen");
    CHECK(dump.first_line == 3);
    CHECK(value(dump, F::guest_cs_selector) == 0x10);
    CHECK(value(dump, F::guest_cs_access_rights) == 0xA09B);
    CHECK(value(dump, F::guest_gs_base) == 0xFFFF'8800'3E40'0000);
    CHECK(value(dump, F::guest_idtr_limit) == 0xFFF);
    CHECK(value(dump, F::guest_tr_base) == 0xFFFF'8800'3E41'2340);
    CHECK(value(dump, F::guest_ia32_efer) == 0xD01);
    CHECK(value(dump, F::host_rip) == 0xFFFF'82D0'8021'2340);
    CHECK(value(dump, F::host_cs_selector) == 0xE008);
    CHECK(value(dump, F::guest_rflags) == 0x246);
    CHECK(value(dump, F::virtual_processor_identifier) == 0x123);
}

TEST_CASE("dump of a VMCB by KVM: behind syslog's prefix; decimal and hexadecimal numbers") {
    const Dump dump = read_dump(kvm_vmcb, "f");
    CHECK(dump.source == "KVM");
    CHECK(dump.svm);
    CHECK(value(dump, "intercept_cr") == 0x0010'0010);
    CHECK(value(dump, "intercept_word3") == 0xBC4C'8027);
    CHECK(value(dump, "intercept_word4") == 0x624F);
    CHECK(value(dump, "pause_filter_count") == 3000);
    CHECK(value(dump, "guest_asid") == 10);
    CHECK(value(dump, "n_cr3") == 0x1'05D2'E000);
    CHECK(value(dump, "cs_attrib") == 0x29B);
    CHECK(value(dump, "tr_selector") == 0x40);
    CHECK(value(dump, "idtr_limit") == 0xFFF);
    CHECK(value(dump, "efer") == 0x1D01);
    CHECK(value(dump, "cpl") == 0);
    CHECK(value(dump, "rip") == 0xFFFF'FFFF'81A0'1234);
    CHECK(value(dump, "g_pat") == 0x0007'0406'0007'0106);
}

TEST_CASE("dump of a VMCB by Xen: its names of the fields") {
    const Dump dump = read_dump(xen_vmcb, "f");
    CHECK(dump.source == "Xen");
    CHECK(dump.svm);
    CHECK(value(dump, "intercept_exceptions") == 0x60082);
    CHECK(value(dump, "guest_asid") == 0x12);
    CHECK(value(dump, "nested_control") == 1);
    CHECK(value(dump, "n_cr3") == 0x8'1234'7000);
    CHECK(value(dump, "cr4") == 0x6F0);
    CHECK(value(dump, "cs_attrib") == 0x29B);
    CHECK(value(dump, "eventinj") == 0);
}

TEST_CASE("dump: as JSON it is read again, with the same fields") {
    for (const std::string& text : {kvm_vmcs, xen_vmcs, kvm_vmcb, xen_vmcb}) {
        const Dump dump = read_dump(text, "f");
        const Dump again = read_dump(dump_as_json(dump), "f");
        CHECK(again.source == "JSON");
        CHECK(again.svm == dump.svm);
        CHECK(again.vmcs.field == dump.vmcs.field);
        CHECK(dump_as_json(again) == dump_as_json(dump));
    }
}

TEST_CASE("dump: of several in a file the first one is read, and what follows it does not change it") {
    const Dump two = read_dump(kvm_vmcs + changed(kvm_vmcs, "RIP = 0xffffffff81001234", "RIP = 0x1"), "f");
    CHECK(value(two, F::guest_rip) == 0xFFFF'FFFF'8100'1234);
    const Dump oops = read_dump(
        kvm_vmcb + "[ 88.2] RIP: 0010:svm_vcpu_run+0x1/0x2\n[ 88.2] RSP: 0018:ffffc9 CR3: 77\n", "f");
    CHECK(value(oops, "rip") == 0xFFFF'FFFF'81A0'1234);
    CHECK(value(oops, "cr3") == 0x2A1'0000);
}

TEST_CASE("dump: what is no dump, or damaged, is refused with its line and what was expected") {
    CHECK(refused("") == "f: expected a dump; the file is empty");
    CHECK(refused("[ 1.0] Linux version 6.1\n[ 1.1] hello\n")
              .starts_with("f: line 2: expected a dump of a VMCS"));
    CHECK(refused(changed(kvm_vmcs, "RIP = 0xffffffff81001234", "RIP = 0xffffzz81001234")) ==
          "f: line 8: RIP: expected a number");
    CHECK(refused(changed(kvm_vmcs, "sel=0x0010, attr=0x0a09b", "sel=0x12345, attr=0x0a09b")) ==
          "f: line 11: sel: expected a number up to 0xffff");
    CHECK(refused(changed(kvm_vmcs, "CR3 = 0x0000000012340000", "CR3 = 0x10000000000000000")) ==
          "f: line 5: CR3: expected a number up to 0xffffffffffffffff");
    CHECK(refused(changed(xen_vmcs, "CS: 0010 0a09b ffffffff 0000000000000000", "CS: 0010 0a09b")) ==
          "f: line 13: CS: expected 4 numbers");
    CHECK(refused(changed(kvm_vmcb, "asid:               10", "asid:               ten")) ==
          "f: line 14: asid: expected a number");
    CHECK(refused("{\"vmcs\": 3}") == "f: vmcs: expected an object with a member for each field");
    CHECK(refused("{\"vmcs\": {\"guest_cr9\": 1}}") ==
          "f: vmcs.guest_cr9: expected the name of a VMCS field");
    CHECK(refused("{\"vmcs\": {\"guest_cs_selector\": 65536}}") ==
          "f: vmcs.guest_cs_selector: expected a number up to 0xffff, such as 31 or \"0x1f\"");
    CHECK(refused("{\"vmcb\": {\"cr0\": \"pe\"}}").starts_with("f: vmcb.cr0: expected a number up to"));
    CHECK(refused("{") == "f: expected a JSON object with \"vmcs\" or \"vmcb\"");
}

TEST_CASE("dump: cut anywhere, or with any bytes wrong, it is read or refused") {
    Random random(2024);
    for (const std::string& whole : {kvm_vmcs, xen_vmcs, kvm_vmcb, xen_vmcb}) {
        for (std::size_t size = 0; size < whole.size(); size += 7) (void)refused(whole.substr(0, size));
        for (unsigned round = 0; round < 200; ++round) {
            std::string text = whole;
            for (unsigned n = 0; n < 5; ++n)
                text[random.next() % text.size()] = static_cast<char>(random.next());
            (void)refused(text);
        }
    }
}
