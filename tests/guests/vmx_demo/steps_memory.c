/* EPT: violations, misconfigurations, accessed and dirty flags, the log.
 * SDM 3C 28.2 "The Extended Page Table Mechanism (EPT)", Table 27-7.
 *
 * RFLAGS.RF is saved as 1 by exits of this kind outside event delivery (SDM 3C 27.3.3); Bochs 2.7 saves 0. */
#define STEPS_FILE "2"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

/* Text of an assembler operand for an address in the window. */
#define STRING(x) #x
#define EXPANDED(x) STRING(x)
#define IN_WINDOW(page, offset) "(0x50000000 + 0x1000 * " EXPANDED(page) " + " EXPANDED(offset) ")"
/* Numbers of pages as the assembler needs them; they are those of guest_memory.h. */
#define EPT_ABSENT 1
#define READ_ONLY 2
#define READ_EXECUTE 3
#define READ_WRITE 4
#define EXECUTE_ONLY 5
#define WRITE_ONLY 6
#define BAD_TYPE 7
#define GUEST_READ 9
_Static_assert(EPT_ABSENT == page_ept_absent && READ_ONLY == page_ept_read &&
                   READ_EXECUTE == page_ept_read_execute && READ_WRITE == page_ept_read_write &&
                   EXECUTE_ONLY == page_ept_execute && WRITE_ONLY == page_ept_write &&
                   BAD_TYPE == page_ept_bad_type && GUEST_READ == page_guest_read,
               "page numbers agree");

static int has_execute_only(void) { return vmx.ept_vpid_cap & ept_cap_execute_only; }
static int has_accessed_and_dirty(void) { return !!(vmx.ept_vpid_cap & ept_cap_accessed_and_dirty); }

#define ADDRESSES(page, offset)                                               \
    {guest_linear_address, WINDOW + PAGE(page) + (offset)}, {                 \
        guest_physical_address, WINDOW_GUEST_PHYSICAL + PAGE(page) + (offset) \
    }
/* Every violation in the window is at the translation of a linear address of a user-mode, writable page. */
#define VIOLATION(bits) \
    (ept_linear_address_valid | ept_translation | ept_user_page | ept_writable_page | (bits))

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "EPT violations (SDM 3C 28.2.3.2, Table 27-7)"

STEP(ept_read, "read, page not present", "mov ebx, " IN_WINDOW(EPT_ABSENT, 0x120) "\n 9: mov rax, [rbx]",
     .secondary = enable_ept, .reason = exit_ept_violation, .qualification = VIOLATION(ept_data_read),
     .qualification_undefined = ept_undefined, .rf = rf_set,
     .after = {ADDRESSES(EPT_ABSENT, 0x120), {rax, 0}})
static void map_absent_page(void) {
    ept_window[page_ept_absent] = ept_window[page_free] + PAGE(page_ept_absent);
    *(u64*)(window_memory + PAGE(page_ept_absent) + 0x120) = 0x1122334455667788;
    invalidate_ept();
}
AGAIN(ept_read_again, "the host maps the page, the guest's read completes", .secondary = enable_ept,
      .prepare = map_absent_page, .reason = exit_exception_or_nmi, .before = {{exception_bitmap, BIT(UD)}},
      .interruption = EVENT(type_hardware_exception, UD), .rf = rf_set, .at = at_ept_read + 3,
      .after = {{rax, 0x1122334455667788}})
STEP(ept_write, "write, page read-only",
     "mov ebx, " IN_WINDOW(READ_ONLY, 0x7F8) "\n mov rax, [rbx] \n 9: mov [rbx], rax",
     .secondary = enable_ept, .reason = exit_ept_violation,
     .qualification = VIOLATION(ept_data_write | ept_readable), .qualification_undefined = ept_undefined,
     .rf = rf_set, .after = {ADDRESSES(READ_ONLY, 0x7F8)})
STEP(ept_write_execute, "write, page readable and executable",
     "mov ebx, " IN_WINDOW(READ_EXECUTE, 0) "\n 9: mov byte ptr [rbx], 1", .secondary = enable_ept,
     .reason = exit_ept_violation, .qualification = VIOLATION(ept_data_write | ept_readable | ept_executable),
     .qualification_undefined = ept_undefined, .rf = rf_set, .after = {ADDRESSES(READ_EXECUTE, 0)})
STEP(ept_modify, "read and write at once: bit 0 is implementation-specific",
     "mov ebx, " IN_WINDOW(READ_ONLY, 4) "\n 9: add dword ptr [rbx], 1", .secondary = enable_ept,
     .reason = exit_ept_violation, .qualification = VIOLATION(ept_data_write | ept_readable),
     .qualification_undefined = ept_undefined | ept_data_read, .rf = rf_set,
     .after = {ADDRESSES(READ_ONLY, 4)})
STEP(ept_fetch, "fetch, page not executable", "mov ebx, " IN_WINDOW(READ_WRITE, 0x10) "\n jmp rbx",
     .secondary = enable_ept, .reason = exit_ept_violation,
     .qualification = VIOLATION(ept_instruction_fetch | ept_readable | ept_writable),
     .qualification_undefined = ept_undefined, .rf = rf_set,
     .at = (const u8*)(WINDOW + PAGE(READ_WRITE) + 0x10), .after = {ADDRESSES(READ_WRITE, 0x10)})
STEP(ept_execute_only, "read, page execute-only",
     "mov ebx, " IN_WINDOW(EXECUTE_ONLY, 8) "\n 9: mov eax, [rbx]", .available = has_execute_only,
     .secondary = enable_ept, .reason = exit_ept_violation,
     .qualification = VIOLATION(ept_data_read | ept_executable), .qualification_undefined = ept_undefined,
     .rf = rf_set, .after = {ADDRESSES(EXECUTE_ONLY, 8)})
STEP(ept_walk, "guest page table in a page not present: no translation yet, bit 8 = 0",
     "mov ebx, 0x50203450 \n 9: mov rax, [rbx]", .secondary = enable_ept, .reason = exit_ept_violation,
     .qualification = ept_linear_address_valid | ept_data_read, .qualification_undefined = ept_undefined,
     .rf = rf_set,
     .after = {{guest_linear_address, WALK_WINDOW + 0x3450},
               {guest_physical_address, WINDOW_GUEST_PHYSICAL + PAGE(EPT_ABSENT) + 3 * 8}})
/* Bochs 2.7 reports bit 1 alone. */
STEP(ept_walk_ad, "the same with EPT accessed and dirty flags: the walk counts as a write, bits 0 and 1",
     "mov ebx, 0x50203450 \n 9: mov rax, [rbx]", .secondary = enable_ept, .available = has_accessed_and_dirty,
     .before = {{ept_pointer, (u64)ept_pml4 + (3 << 3 | 6 | EPTP_ACCESSED_AND_DIRTY)}},
     .reason = exit_ept_violation, .qualification = ept_linear_address_valid | ept_data_read | ept_data_write,
     .qualification_undefined = ept_undefined, .rf = rf_set,
     .after = {{guest_linear_address, WALK_WINDOW + 0x3450},
               {guest_physical_address, WINDOW_GUEST_PHYSICAL + PAGE(EPT_ABSENT) + 3 * 8}})
STEP(ept_guest_fault_first, "guest paging refuses first: #PF, no EPT violation",
     "mov ebx, " IN_WINDOW(GUEST_READ, 0) "\n 9: mov [rbx], eax", .secondary = enable_ept,
     .before = {{exception_bitmap, BIT(PF)}}, .reason = exit_exception_or_nmi,
     .interruption = EVENT_WITH_ERROR_CODE(type_hardware_exception, PF), .interruption_error = 3,
     .qualification = WINDOW + PAGE(GUEST_READ), .rf = rf_set)
static void unmap_stack_page(void) { vmwrite(guest_rsp, WINDOW + PAGE(EPT_ABSENT) + 0x800); }
STEP(ept_delivery, "while #UD is delivered: the push faults, IDT-vectoring says of what", "ud2",
     .secondary = enable_ept, .prepare = unmap_stack_page, .reason = exit_ept_violation,
     .qualification = VIOLATION(ept_data_write), .qualification_undefined = ept_undefined,
     .vectoring = EVENT(type_hardware_exception, UD), .rf = rf_set, .after = {ADDRESSES(EPT_ABSENT, 0x7F8)})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "EPT misconfigurations (SDM 3C 28.2.3.1)"

STEP(ept_write_only, "entry allows writes but not reads",
     "mov ebx, " IN_WINDOW(WRITE_ONLY, 0x18) "\n 9: mov eax, [rbx]", .secondary = enable_ept,
     .reason = exit_ept_misconfiguration, .rf = rf_set,
     .after = {{guest_physical_address, WINDOW_GUEST_PHYSICAL + PAGE(WRITE_ONLY) + 0x18}})
STEP(ept_bad_type, "memory type 2", "mov ebx, " IN_WINDOW(BAD_TYPE, 0) "\n 9: mov [rbx], eax",
     .secondary = enable_ept, .reason = exit_ept_misconfiguration, .rf = rf_set,
     .after = {{guest_physical_address, WINDOW_GUEST_PHYSICAL + PAGE(BAD_TYPE)}})
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "EPT accessed and dirty flags, page-modification log (SDM 3C 28.2.4, 28.2.5)"

static u64 accessed_and_dirty(void) { return ept_window[page_free] & (EPT_ACCESSED | EPT_DIRTY); }
static const char* only_accessed(void) {
    return accessed_and_dirty() == EPT_ACCESSED ? 0 : "flags of the EPT entry are not A = 1, D = 0";
}
static const char* dirty(void) {
    return accessed_and_dirty() == (EPT_ACCESSED | EPT_DIRTY) ? 0
                                                              : "flags of the EPT entry are not A = 1, D = 1";
}
#define WITH_ACCESSED_AND_DIRTY \
    { ept_pointer, (u64)ept_pml4 + (3 << 3 | 6 | EPTP_ACCESSED_AND_DIRTY) }

STEP(ept_accessed, "a read sets accessed",
     "mov ebx, " IN_WINDOW(0, 0) "\n mov eax, [rbx] \n 9: vmcall \n mov [rbx], eax \n 8: vmcall",
     .secondary = enable_ept, .available = has_accessed_and_dirty, .before = {WITH_ACCESSED_AND_DIRTY},
     .reason = exit_vmcall, .length = 3, .check = only_accessed)
NEXT(ept_dirty, "a write sets dirty", .secondary = enable_ept, .reason = exit_vmcall, .length = 3,
     .at = second(ept_accessed), .check = dirty)
/* What the guest's fetches and page walks touch is dirty already and so not logged (a walk of the guest's
 * paging structures counts as a write). */
static const char* logged_once(void) {
    return page_modification_log[511] == WINDOW_GUEST_PHYSICAL
               ? 0
               : "entry 511 of the log is not the page written to";
}
/* Bochs 2.7 logs the address of the access instead of the page, and finds a full log on any access. */
STEP(pml, "log: the page written to is in it, the index counts down",
     "mov ebx, " IN_WINDOW(0, 0x128) "\n mov [rbx], eax \n mov [rbx], eax \n 9: vmcall",
     .secondary = enable_ept | enable_pml, .before = {WITH_ACCESSED_AND_DIRTY, {pml_index, 511}},
     .prepare = low_memory_is_dirty, .reason = exit_vmcall, .length = 3, .after = {{pml_index, 510}},
     .check = logged_once)
static const char* not_dirty(void) {
    return accessed_and_dirty() & EPT_DIRTY ? "dirty is set although the write did not happen" : 0;
}
STEP(pml_full, "log full: the exit is before the write",
     "mov ebx, " IN_WINDOW(0, 0) "\n mov eax, [rbx] \n 9: mov [rbx], eax",
     .secondary = enable_ept | enable_pml, .before = {WITH_ACCESSED_AND_DIRTY, {pml_index, 0xFFFF}},
     .prepare = low_memory_is_dirty, .reason = exit_page_modification_log_full,
     .qualification_undefined = ~BIT(12), .rf = rf_set, .check = not_dirty)
#undef GROUP
