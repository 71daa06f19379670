// The read and write rules that cpu/msrs.inc names; what each MSR may hold, and what else reading or writing does.
#pragma once

#include "arch/msr.hpp"

#include <cstddef>

namespace exeunt::msr_rules {

/// The stored value, without rule.
inline constexpr std::nullptr_t plain = nullptr;

inline constexpr u64 machine_check_banks = 5;  ///< IA32_MCG_CAP.Count; no other capability
inline constexpr u64 xss_supported = 0;        ///< no supervisor state component is modelled

#define READ_RULE(name) Result<u64> name(Cpu& cpu, u64 stored)
#define WRITE_RULE(name) Result<u64> name(Cpu& cpu, u64 stored, u64 value)
#define STATE_RULES(name)  \
    READ_RULE(name##_read); \
    WRITE_RULE(name##_write)

READ_RULE(write_only);
READ_RULE(arch_capabilities);
READ_RULE(patch_level_read);
WRITE_RULE(command_write);
WRITE_RULE(microcode_update);
WRITE_RULE(spec_ctrl_write);
WRITE_RULE(amd_spec_ctrl_write);
WRITE_RULE(mtrr_base_write);
WRITE_RULE(mtrr_mask_write);
WRITE_RULE(mtrr_fixed_write);
WRITE_RULE(mtrr_def_type_write);
WRITE_RULE(mc_status_write);
STATE_RULES(tsc);
STATE_RULES(tsc_adjust);
STATE_RULES(ticks);
STATE_RULES(sysenter_cs);
STATE_RULES(sysenter_esp);
STATE_RULES(sysenter_eip);
STATE_RULES(misc_enable);
STATE_RULES(debugctl);
STATE_RULES(pat);
STATE_RULES(pkrs);
STATE_RULES(xss);
STATE_RULES(efer);
STATE_RULES(star);
STATE_RULES(lstar);
STATE_RULES(cstar);
STATE_RULES(fmask);
STATE_RULES(fs_base);
STATE_RULES(gs_base);
STATE_RULES(kernel_gs);
STATE_RULES(tsc_aux);

#undef READ_RULE
#undef WRITE_RULE
#undef STATE_RULES

}  // namespace exeunt::msr_rules
