/* VMX instructions in the host, their outcomes and error numbers.
 * SDM 3C ch. 30 "VMX Instruction Reference", Table 30-1 "VM-Instruction Error Numbers". */
#define STEPS_FILE "4"
#include "guest_memory.h"
#include "step.h"
#include "vmx.h"

/* An encoding that no field has. */
#define NO_FIELD 0x482C

static u64 value;

#define HOST_FUNCTION(name, expression) \
    static enum VmxOutcome name(void) { return expression; }
#define FAILS(number) .outcome = outcome_vm_fail_valid, .error = number
#define SUCCEEDS .outcome = outcome_vm_succeed
#define FAILS_INVALID .outcome = outcome_vm_fail_invalid

static int read_only_fields_stay_read_only(void) { return !(vmx.misc >> 29 & 1); }

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "VMX instructions in the host: pointers and fields (SDM 3C 30.3)"

#ifndef FOR_BOCHS_2_7 /* it stops: "VMCALL: not implemented yet" */
HOST_FUNCTION(do_vmcall, vmcall())
HOST_STEP(host_vmcall, "VMCALL in VMX root operation", do_vmcall, FAILS(1))
#endif
HOST_FUNCTION(vmclear_misaligned, vmclear((u64)spare_region + 8))
HOST_STEP(host_vmclear_misaligned, "VMCLEAR, address not aligned", vmclear_misaligned, FAILS(2))
HOST_FUNCTION(vmclear_wide, vmclear(1ul << 62))
HOST_STEP(host_vmclear_wide, "VMCLEAR, address beyond the physical-address width", vmclear_wide, FAILS(2))
HOST_FUNCTION(vmclear_vmxon, vmclear((u64)vmxon_region))
HOST_STEP(host_vmclear_vmxon, "VMCLEAR of the VMXON region", vmclear_vmxon, FAILS(3))
HOST_FUNCTION(vmptrld_misaligned, vmptrld((u64)spare_region + 8))
HOST_STEP(host_vmptrld_misaligned, "VMPTRLD, address not aligned", vmptrld_misaligned, FAILS(9))
HOST_FUNCTION(vmptrld_vmxon, vmptrld((u64)vmxon_region))
HOST_STEP(host_vmptrld_vmxon, "VMPTRLD of the VMXON region", vmptrld_vmxon, FAILS(10))
static enum VmxOutcome vmptrld_revision(void) {
    *(u32*)spare_region = ((u32)vmx.basic & 0x7FFFFFFF) ^ 1;
    return vmptrld((u64)spare_region);
}
HOST_STEP(host_vmptrld_revision, "VMPTRLD, wrong VMCS revision identifier", vmptrld_revision, FAILS(11))
HOST_FUNCTION(do_vmxon, vmxon((u64)vmxon_region))
HOST_STEP(host_vmxon, "VMXON in VMX root operation", do_vmxon, FAILS(15))
HOST_FUNCTION(vmread_no_field, vmread_outcome(NO_FIELD, &value))
HOST_STEP(host_vmread_no_field, "VMREAD of an unsupported component", vmread_no_field, FAILS(12))
HOST_FUNCTION(vmwrite_no_field, vmwrite_outcome(NO_FIELD, 0))
HOST_STEP(host_vmwrite_no_field, "VMWRITE of an unsupported component", vmwrite_no_field, FAILS(12))
HOST_FUNCTION(vmwrite_read_only, vmwrite_outcome(exit_reason, 0))
HOST_STEP(host_vmwrite_read_only, "VMWRITE of a read-only component", vmwrite_read_only, FAILS(13),
          .available = read_only_fields_stay_read_only)

static enum VmxOutcome pointer_is_stored(void) {
    return vmptrst(&value) == vm_succeed && value == (u64)vmcs_region ? vm_succeed : vm_fail_invalid;
}
HOST_STEP(host_vmptrst, "VMPTRST stores the current-VMCS pointer", pointer_is_stored, SUCCEEDS)
static enum VmxOutcome no_current_vmcs(void) {
    vmclear((u64)vmcs_region);
    vmptrst(&value);
    return value == ~0ul ? vmread_outcome(guest_rip, &value) : vm_succeed;
}
HOST_STEP(host_no_vmcs, "without a current VMCS: pointer all ones, VMREAD fails", no_current_vmcs,
          FAILS_INVALID)
HOST_FUNCTION(launch_without_vmcs,
              (vmclear((u64)vmcs_region), (vm_enter(&guest_registers, 0) & 1) ? vm_fail_invalid : vm_succeed))
HOST_STEP(host_launch_without_vmcs, "and VMLAUNCH fails", launch_without_vmcs, FAILS_INVALID)

/* SDM 3C 24.11.2 "VMREAD, VMWRITE, and Encodings of VMCS Fields" */
static int reads(u64 field, u64 expected) {
    return vmread_outcome(field, &value) == vm_succeed && value == expected;
}
static enum VmxOutcome widths(void) {
    vmwrite(guest_es_selector, 0xFFFFFFFFFFFF1234);
    vmwrite(guest_es_limit, 0xFFFFFFFF12345678);
    vmwrite(tsc_offset, 0x1122334455667788);
    if (!reads(guest_es_selector, 0x1234) || !reads(guest_es_limit, 0x12345678) ||
        !reads(tsc_offset + 1, 0x11223344))
        return vm_fail_invalid;
    vmwrite(tsc_offset + 1, 0xFFFFFFFF99999999);
    return reads(tsc_offset, 0x9999999955667788) ? vm_succeed : vm_fail_invalid;
}
HOST_STEP(host_widths, "VMREAD and VMWRITE: widths of fields, high halves of 64-bit fields", widths, SUCCEEDS)

/* Data survives VMCLEAR and VMPTRLD (SDM 3C 24.1). */
static enum VmxOutcome two_vmcss(void) {
    *(u32*)spare_region = (u32)vmx.basic & 0x7FFFFFFF;
    vmwrite(guest_rip, 0x1111);
    vmclear((u64)spare_region);
    vmptrld((u64)spare_region);
    vmwrite(guest_rip, 0x2222);
    vmptrld((u64)vmcs_region);
    if (!reads(guest_rip, 0x1111)) return vm_fail_invalid;
    vmptrld((u64)spare_region);
    return reads(guest_rip, 0x2222) ? vmclear((u64)spare_region) : vm_fail_invalid;
}
HOST_STEP(host_two, "two VMCSs keep their fields apart", two_vmcss, SUCCEEDS)
#undef GROUP

/* ------------------------------------------------------------------------------------------------------- */
#define GROUP "INVEPT and INVVPID in the host (SDM 3C 30.3)"

enum { single_context = 1, all_context = 2, retaining_globals = 3, individual_address = 0 };
#define DESCRIPTOR(low, high) ((struct Descriptor128){(low), (high)})
#define EPTP ((u64)ept_pml4 | 3 << 3 | 6)

static int has_invept(void) {
    return (vmx.secondary_allowed & enable_ept) && (vmx.ept_vpid_cap & ept_cap_invept);
}
static int has_invvpid(void) {
    return (vmx.secondary_allowed & enable_vpid) && (vmx.ept_vpid_cap & vpid_cap_invvpid);
}

#define INVALIDATION(id, text, instruction, type, low, high, ...)    \
    HOST_FUNCTION(do_##id, instruction(type, DESCRIPTOR(low, high))) \
    HOST_STEP(id, text, do_##id, .available = has_##instruction, __VA_ARGS__)
INVALIDATION(invept_single, "INVEPT single-context", invept, single_context, EPTP, 0, SUCCEEDS)
INVALIDATION(invept_all, "INVEPT all-context", invept, all_context, 0, 0, SUCCEEDS)
INVALIDATION(invept_type, "INVEPT type 3", invept, 3, EPTP, 0, FAILS(28))
INVALIDATION(invept_eptp, "INVEPT single-context, EPTP of memory type 7", invept, single_context, EPTP | 7, 0,
             FAILS(28))
INVALIDATION(invvpid_address, "INVVPID individual-address", invvpid, individual_address, 1, 0x1000, SUCCEEDS)
INVALIDATION(invvpid_single, "INVVPID single-context", invvpid, single_context, 1, 0, SUCCEEDS)
INVALIDATION(invvpid_all, "INVVPID all-context", invvpid, all_context, 0, 0, SUCCEEDS)
INVALIDATION(invvpid_globals, "INVVPID single-context retaining globals", invvpid, retaining_globals, 1, 0,
             SUCCEEDS)
INVALIDATION(invvpid_type, "INVVPID type 4", invvpid, 4, 1, 0, FAILS(28))
INVALIDATION(invvpid_zero, "INVVPID single-context, VPID 0", invvpid, single_context, 0, 0, FAILS(28))
INVALIDATION(invvpid_reserved, "INVVPID, descriptor bits 63:16", invvpid, single_context, 0x10001, 0,
             FAILS(28))
INVALIDATION(invvpid_canonical, "INVVPID individual-address, address not canonical", invvpid,
             individual_address, 1, 1ul << 62, FAILS(28))
#undef GROUP
