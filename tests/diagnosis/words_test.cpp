// Numbers in words. SDM 3C 27.2, 24.9; APM 2 15.7.1.
#include "diagnosis/words.hpp"

#include "diagnosis/exits.hpp"
#include "diagnosis/fields.hpp"

#include <doctest/doctest.h>
#include <set>
#include <string>

using namespace exeunt;

TEST_CASE("words: every layout that an exit reason names has rows") {
    std::set<std::string> without = {"nothing", "debug_or_page_fault"};
    const char* layouts[] = {
#define EXIT_REASON(number, name, manual, qualification, information, length) #qualification, #information,
#include "vmx/exit_reasons.inc"
    };
    for (const char* layout : layouts) {
        CAPTURE(std::string(layout));
        CHECK((without.contains(layout) || layout_exists(layout)));
    }
    CHECK(layout_exists("debug"));
    CHECK(!layout_exists("no_such_layout"));
}

TEST_CASE("words: exit qualifications [SDM 3C Tables 27-1 to 27-7]") {
    CHECK(on_one_line("control_register_access", 0x0302) ==
          "control register 2, access MOV to CR, general register RBX");
    CHECK(on_one_line("control_register_access", 0x1234'0030) ==
          "control register 0, access LMSW, LMSW operand register, LMSW source 0x1234");
    CHECK(on_one_line("io_instruction", 0x03F8'0059) ==
          "port 0x3f8, size 2 bytes, direction IN, string instruction yes, REP no, port operand immediate");
    CHECK(on_one_line("ept_violation", 0x1) == "data read, the page is readable no, the page is writable no, "
                                               "the page is executable no, guest-linear address "
                                               "not valid");
    CHECK(on_one_line("task_switch", 0x8000'0040) == "selector of the TSS 0x40, source JMP");
    CHECK(on_one_line("apic_access", 0xF300) ==
          "offset in the APIC page 0x300, access guest-physical, fetch or data of an instruction");
    CHECK(on_one_line("debug", 0x4001) == "B0 BS");
}

TEST_CASE(
    "words: instruction information leaves out registers that are not used [SDM 3C Tables 27-8 to 27-14]") {
    CHECK(on_one_line("vmread_vmwrite", 0x3000'0400 | 5 << 3) ==
          "operand register, register RBP, register with the encoding RBX");
    const u64 memory = 1 | 2 << 7 | 3 << 15 | u64{1} << 22 | u64{2} << 23; // no index
    CHECK(on_one_line("invalidate", memory) ==
          "address size 64 bits, segment DS, base RDX, register with the type RAX");
}

TEST_CASE("words: events [SDM 3C Table 24-15; APM 2 15.20]") {
    CHECK(on_one_line("interruption", 0x8000'0B0E) ==
          "vector #PF, type hardware exception, error code valid");
    CHECK(on_one_line("interruption", 0x0000'0B0E).empty()); // not valid
    CHECK(on_one_line("svm_event", 0x2'8000'0B0E) ==
          "vector #PF, type exception, error code valid, error code 0x2");
    CHECK(vector_name(0x20) == "vector 20H");
}

TEST_CASE("words: fields of the VMCS and of the VMCB") {
    CHECK(find_vmcs_field("GUEST_CR0") == VmcsField::guest_cr0);
    CHECK(find_vmcs_field("guest_cr9") == std::nullopt);
    CHECK(on_one_line(field_in_words(VmcsField::guest_cr0, 0x8000'0021)) == "PE NE PG");
    CHECK(on_one_line(field_in_words(VmcsField::guest_cs_selector, 0x1B)) == "index 0x3, table GDT, RPL 3");
    CHECK(on_one_line(field_in_words(VmcsField::vm_entry_controls, 0x204)) ==
          "bit 2 load debug controls, bit 9 ia 32e mode guest");
    CHECK(show_field(VmcsField::guest_cs_selector, 0x1B) == "0x001b");
    CHECK(find_vmcb_field("EFER") != nullptr);
    CHECK(find_vmcb_field("efer")->offset == 0x4D0);
    CHECK(show_field(*find_vmcb_field("guest_asid"), 1) == "0x00000001");
}

TEST_CASE("words: exits by number and by name") {
    u64 reason = 0;
    CHECK(find_exit(false, "EPT violation", reason));
    CHECK(reason == 48);
    CHECK(find_exit(false, "hlt", reason));
    CHECK(reason == 12);
    CHECK(find_exit(true, "npf", reason));
    CHECK(reason == 0x400);
    CHECK(!find_exit(true, "hello", reason));
    CHECK(exit_name(false, 0x8000'0021) == "VM-entry failure: invalid guest state");
    CHECK(exit_name(false, 71).empty());
}

TEST_CASE("words: bits of a mask, highest first") {
    CHECK(bit_numbers(0) == "none");
    CHECK(bit_numbers(0b1011'0000'0001) == "11, 9:8, 0");
    CHECK(bit_numbers(~u64{0}) == "63:0");
    CHECK(manual_hexadecimal(0xC00) == "0C00H");
    CHECK(manual_hexadecimal(0x681A) == "681AH");
}
