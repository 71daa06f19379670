// Dumps in the formats of KVM and Xen, of guests that never ran: every rule of VM entry holds for them.
#pragma once

#include <string>

namespace exeunt::test {

/// KVM of Linux 6.x, as dmesg prints it.
inline const std::string kvm_vmcs = R"([  101.000001] kvm_intel: VMCS 0000000012345678, last attempted VM-entry on CPU 3
[  101.000002] kvm_intel: *** Guest State ***
[  101.000003] kvm_intel: CR0: actual=0x0000000080050033, shadow=0x0000000080050031, gh_mask=fffffffffffffff7
[  101.000004] kvm_intel: CR4: actual=0x0000000000002620, shadow=0x0000000000000620, gh_mask=fffffffffffff871
[  101.000005] kvm_intel: CR3 = 0x0000000012340000
[  101.000006] kvm_intel: PDPTR0 = 0x0000000000000000  PDPTR1 = 0x0000000000000000
[  101.000007] kvm_intel: PDPTR2 = 0x0000000000000000  PDPTR3 = 0x0000000000000000
[  101.000008] kvm_intel: RSP = 0xffffc90000013e80  RIP = 0xffffffff81001234
[  101.000009] kvm_intel: RFLAGS=0x00000246         DR7 = 0x0000000000000400
[  101.000010] kvm_intel: Sysenter RSP=fffffe0000002000 CS:RIP=0010:ffffffff81800a10
[  101.000011] kvm_intel: CS:   sel=0x0010, attr=0x0a09b, limit=0xffffffff, base=0x0000000000000000
[  101.000012] kvm_intel: DS:   sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0x0000000000000000
[  101.000013] kvm_intel: SS:   sel=0x0018, attr=0x0c093, limit=0xffffffff, base=0x0000000000000000
[  101.000014] kvm_intel: ES:   sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0x0000000000000000
[  101.000015] kvm_intel: FS:   sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0x00007f0012345678
[  101.000016] kvm_intel: GS:   sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0xffff88803fc00000
[  101.000017] kvm_intel: GDTR:                           limit=0x0000007f, base=0xfffffe0000001000
[  101.000018] kvm_intel: LDTR: sel=0x0000, attr=0x1c000, limit=0xffffffff, base=0x0000000000000000
[  101.000019] kvm_intel: IDTR:                           limit=0x00000fff, base=0xfffffe0000000000
[  101.000020] kvm_intel: TR:   sel=0x0040, attr=0x0008b, limit=0x00004087, base=0xfffffe0000003000
[  101.000021] kvm_intel: EFER= 0x0000000000000d01
[  101.000022] kvm_intel: PAT = 0x0407050600070106
[  101.000023] kvm_intel: DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
[  101.000024] kvm_intel: Interruptibility = 00000000  ActivityState = 00000000
[  101.000025] kvm_intel: *** Host State ***
[  101.000026] kvm_intel: RIP = 0xffffffffc0a01230  RSP = 0xffffc900012a7c98
[  101.000027] kvm_intel: CS=0010 SS=0018 DS=0000 ES=0000 FS=0000 GS=0000 TR=0040
[  101.000028] kvm_intel: FSBase=00007f3c0ffff6c0 GSBase=ffff88842fc00000 TRBase=fffffe0000049000
[  101.000029] kvm_intel: GDTBase=fffffe0000047000 IDTBase=fffffe0000000000
[  101.000030] kvm_intel: CR0=0000000080050033 CR3=0000000109a3c000 CR4=0000000000172660
[  101.000031] kvm_intel: Sysenter RSP=fffffe0000049000 CS:RIP=0010:ffffffff82001540
[  101.000032] kvm_intel: EFER= 0x0000000000000d01
[  101.000033] kvm_intel: PAT = 0x0407050600070106
[  101.000034] kvm_intel: *** Control State ***
[  101.000035] kvm_intel: CPUBased=0x9421e1f2 SecondaryExec=0x000000aa TertiaryExec=0x0000000000000000
[  101.000036] kvm_intel: PinBased=0x0000003f EntryControls=000093ff ExitControls=00336fff
[  101.000037] kvm_intel: ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
[  101.000038] kvm_intel: VMEntry: intr_info=00000000 errcode=00000006 ilen=00000000
[  101.000039] kvm_intel: VMExit: intr_info=00000000 errcode=00000000 ilen=00000003
[  101.000040] kvm_intel:         reason=80000021 qualification=0000000000000000
[  101.000041] kvm_intel: IDTVectoring: info=00000000 errcode=00000000
[  101.000042] kvm_intel: TSC Offset = 0xffffff0123456789
[  101.000043] kvm_intel: TPR Threshold = 0x00
[  101.000044] kvm_intel: virt-APIC addr = 0x0000000104567000
[  101.000045] kvm_intel: EPT pointer = 0x000000010a00001e
[  101.000046] kvm_intel: Virtual processor ID = 0x0001
)";

/// Xen 4.x, as `xl dmesg` prints it.
inline const std::string xen_vmcs = R"((XEN) [2024-02-03 04:05:06.789] d7v0 vmentry failure (reason 0x80000021): Invalid guest state (0)
(XEN) [2024-02-03 04:05:06.789] ************* VMCS Area **************
(XEN) [2024-02-03 04:05:06.789] *** Guest State ***
(XEN) [2024-02-03 04:05:06.789] CR0: actual=0x0000000080050033, shadow=0x0000000080050033, gh_mask=ffffffffffffffff
(XEN) [2024-02-03 04:05:06.789] CR4: actual=0x0000000000002660, shadow=0x0000000000000660, gh_mask=ffffffffffffffff
(XEN) [2024-02-03 04:05:06.789] CR3 = 0x0000000012345000
(XEN) [2024-02-03 04:05:06.789] PDPTE0 = 0x0000000000000000  PDPTE1 = 0x0000000000000000
(XEN) [2024-02-03 04:05:06.789] PDPTE2 = 0x0000000000000000  PDPTE3 = 0x0000000000000000
(XEN) [2024-02-03 04:05:06.789] RSP = 0xffff8800123ffed8 (0xffff8800123ffed8)  RIP = 0xffffffff81012345 (0xffffffff81012345)
(XEN) [2024-02-03 04:05:06.789] RFLAGS=0x00000246 (0x00000246)  DR7 = 0x0000000000000400
(XEN) [2024-02-03 04:05:06.789] Sysenter RSP=0000000000000000 CS:RIP=0010:ffffffff81601230
(XEN) [2024-02-03 04:05:06.789]        sel  attr  limit   base
(XEN) [2024-02-03 04:05:06.789]   CS: 0010 0a09b ffffffff 0000000000000000
(XEN) [2024-02-03 04:05:06.789]   DS: 0000 1c000 ffffffff 0000000000000000
(XEN) [2024-02-03 04:05:06.789]   SS: 0018 0c093 ffffffff 0000000000000000
(XEN) [2024-02-03 04:05:06.789]   ES: 0000 1c000 ffffffff 0000000000000000
(XEN) [2024-02-03 04:05:06.789]   FS: 0000 1c000 ffffffff 00007f0011112222
(XEN) [2024-02-03 04:05:06.789]   GS: 0000 1c000 ffffffff ffff88003e400000
(XEN) [2024-02-03 04:05:06.789] GDTR:            0000007f ffff88003e40c000
(XEN) [2024-02-03 04:05:06.789] LDTR: 0000 1c000 ffffffff 0000000000000000
(XEN) [2024-02-03 04:05:06.789] IDTR:            00000fff ffffffffff57a000
(XEN) [2024-02-03 04:05:06.789]   TR: 0040 0008b 00002087 ffff88003e412340
(XEN) [2024-02-03 04:05:06.789] EFER(VMCS) = 0x0000000000000d01  PAT = 0x0000050100070406
(XEN) [2024-02-03 04:05:06.789] PreemptionTimer = 0x00000000  SM Base = 0x00000000
(XEN) [2024-02-03 04:05:06.789] DebugCtl = 0x0000000000000000  DebugExceptions = 0x0000000000000000
(XEN) [2024-02-03 04:05:06.789] Interruptibility = 00000000  ActivityState = 00000000
(XEN) [2024-02-03 04:05:06.789] *** Host State ***
(XEN) [2024-02-03 04:05:06.789] RIP = 0xffff82d080212340 (vmx_asm_vmexit_handler)  RSP = 0xffff83043ff2ff70
(XEN) [2024-02-03 04:05:06.789] CS=e008 SS=0000 DS=0000 ES=0000 FS=0000 GS=0000 TR=e040
(XEN) [2024-02-03 04:05:06.789] FSBase=0000000000000000 GSBase=0000000000000000 TRBase=ffff83043ff39000
(XEN) [2024-02-03 04:05:06.789] GDTBase=ffff83043ff2c000 IDTBase=ffff83043ff38000
(XEN) [2024-02-03 04:05:06.789] CR0=0000000080050033 CR3=000000040a123000 CR4=0000000000172660
(XEN) [2024-02-03 04:05:06.789] Sysenter RSP=ffff83043ff2ffa0 CS:RIP=e008:ffff82d080212000
(XEN) [2024-02-03 04:05:06.789] EFER = 0x0000000000000d01  PAT = 0x0000050100070406
(XEN) [2024-02-03 04:05:06.789] *** Control State ***
(XEN) [2024-02-03 04:05:06.789] PinBased=0000003f CPUBased=9421e1f2 SecondaryExec=000000aa
(XEN) [2024-02-03 04:05:06.789] EntryControls=000093ff ExitControls=00336fff
(XEN) [2024-02-03 04:05:06.789] ExceptionBitmap=00060082 PFECmask=00000000 PFECmatch=00000000
(XEN) [2024-02-03 04:05:06.789] VMEntry: intr_info=00000000 errcode=00000000 ilen=00000000
(XEN) [2024-02-03 04:05:06.789] VMExit: intr_info=00000000 errcode=00000000 ilen=00000003
(XEN) [2024-02-03 04:05:06.789]         reason=80000021 qualification=0000000000000000
(XEN) [2024-02-03 04:05:06.789] IDTVectoring: info=00000000 errcode=00000000
(XEN) [2024-02-03 04:05:06.789] TSC Offset = 0xffffffa123456789  TSC Multiplier = 0x0000000000000000
(XEN) [2024-02-03 04:05:06.789] TPR Threshold = 0x00  PostedIntrVec = 0x00
(XEN) [2024-02-03 04:05:06.789] EPT pointer = 0x000000043a3a701e  EPTP index = 0x0000
(XEN) [2024-02-03 04:05:06.789] Virtual processor ID = 0x0123 VMfunc controls = 0000000000000000
(XEN) [2024-02-03 04:05:06.789] **************************************
)";

/// KVM on AMD, through syslog.
inline const std::string kvm_vmcb = R"(Mar  4 05:06:07 box kernel: [ 88.100000] SVM: VMCB 00000000aaaaaaaa, last attempted VMRUN on CPU 1
Mar  4 05:06:07 box kernel: [ 88.100001] VMCB Control Area:
Mar  4 05:06:07 box kernel: [ 88.100002] cr_read:            0010
Mar  4 05:06:07 box kernel: [ 88.100003] cr_write:           0010
Mar  4 05:06:07 box kernel: [ 88.100004] dr_read:            00ff
Mar  4 05:06:07 box kernel: [ 88.100005] dr_write:           00ff
Mar  4 05:06:07 box kernel: [ 88.100006] exceptions:         00060042
Mar  4 05:06:07 box kernel: [ 88.100007] intercepts:         bc4c8027 0000624f
Mar  4 05:06:07 box kernel: [ 88.100008] pause filter count: 3000
Mar  4 05:06:07 box kernel: [ 88.100009] pause filter threshold:128
Mar  4 05:06:07 box kernel: [ 88.100010] iopm_base_pa:       0000000103a40000
Mar  4 05:06:07 box kernel: [ 88.100011] msrpm_base_pa:      0000000104c32000
Mar  4 05:06:07 box kernel: [ 88.100012] tsc_offset:         ffffffd012345678
Mar  4 05:06:07 box kernel: [ 88.100013] asid:               10
Mar  4 05:06:07 box kernel: [ 88.100014] tlb_ctl:            0
Mar  4 05:06:07 box kernel: [ 88.100015] int_ctl:            07000200
Mar  4 05:06:07 box kernel: [ 88.100016] int_vector:         00000000
Mar  4 05:06:07 box kernel: [ 88.100017] int_state:          00000000
Mar  4 05:06:07 box kernel: [ 88.100018] exit_code:          ffffffff
Mar  4 05:06:07 box kernel: [ 88.100019] exit_info1:         0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100020] exit_info2:         0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100021] exit_int_info:      00000000
Mar  4 05:06:07 box kernel: [ 88.100022] exit_int_info_err:  00000000
Mar  4 05:06:07 box kernel: [ 88.100023] nested_ctl:         1
Mar  4 05:06:07 box kernel: [ 88.100024] nested_cr3:         0000000105d2e000
Mar  4 05:06:07 box kernel: [ 88.100025] event_inj:          00000000
Mar  4 05:06:07 box kernel: [ 88.100026] event_inj_err:      00000000
Mar  4 05:06:07 box kernel: [ 88.100027] virt_ext:           2
Mar  4 05:06:07 box kernel: [ 88.100028] next_rip:           0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100029] VMCB State Save Area:
Mar  4 05:06:07 box kernel: [ 88.100030] es:   s: 0000 a: 0000 l: ffffffff b: 0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100031] cs:   s: 0010 a: 029b l: ffffffff b: 0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100032] ss:   s: 0018 a: 0c93 l: ffffffff b: 0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100033] ds:   s: 0000 a: 0000 l: ffffffff b: 0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100034] fs:   s: 0000 a: 0000 l: ffffffff b: 00007f1234567000
Mar  4 05:06:07 box kernel: [ 88.100035] gs:   s: 0000 a: 0000 l: ffffffff b: ffff88813bc00000
Mar  4 05:06:07 box kernel: [ 88.100036] gdtr: s: 0000 a: 0000 l: 0000007f b: fffffe0000001000
Mar  4 05:06:07 box kernel: [ 88.100037] ldtr: s: 0000 a: 0000 l: ffffffff b: 0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100038] idtr: s: 0000 a: 0000 l: 00000fff b: fffffe0000000000
Mar  4 05:06:07 box kernel: [ 88.100039] tr:   s: 0040 a: 008b l: 00004087 b: fffffe0000003000
Mar  4 05:06:07 box kernel: [ 88.100040] vmpl: 0   cpl:  0               efer:          0000000000001d01
Mar  4 05:06:07 box kernel: [ 88.100041] cr0:            0000000080050033 cr2:           00007f1234567890
Mar  4 05:06:07 box kernel: [ 88.100042] cr3:            0000000002a10000 cr4:           00000000000006f0
Mar  4 05:06:07 box kernel: [ 88.100043] dr6:            00000000ffff0ff0 dr7:           0000000000000400
Mar  4 05:06:07 box kernel: [ 88.100044] rip:            ffffffff81a01234 rflags:        0000000000000246
Mar  4 05:06:07 box kernel: [ 88.100045] rsp:            ffffffff82603e78 rax:           0000000000000000
Mar  4 05:06:07 box kernel: [ 88.100046] star:           0023001000000000 lstar:         ffffffff81c00080
Mar  4 05:06:07 box kernel: [ 88.100047] cstar:          ffffffff81c012a0 sfmask:        0000000000257fd5
Mar  4 05:06:07 box kernel: [ 88.100048] kernel_gs_base: 0000000000000000 sysenter_cs:   0000000000000010
Mar  4 05:06:07 box kernel: [ 88.100049] sysenter_esp:   fffffe0000002200 sysenter_eip:  ffffffff81c01600
Mar  4 05:06:07 box kernel: [ 88.100050] gpat:           0007040600070106 dbgctl:        0000000000000000
)";

/// Xen on AMD, by its debug key v.
inline const std::string xen_vmcb = R"((XEN) >>> Domain 4 <<<
(XEN)   VCPU 0
(XEN) Dumping guest's current state at key_handler...
(XEN) Size of VMCB = 4096, paddr = 0000000812345000, vaddr = ffff830812345000
(XEN) cr_intercepts = 0xfef3fef3 dr_intercepts = 0xffffffff exception_intercepts = 0x60082
(XEN) general1_intercepts = 0xbdc4000f general2_intercepts = 0x2e7f
(XEN) iopm_base_pa = 0x95518000 msrpm_base_pa = 0x812340000 tsc_offset = 0xffffff8123456789
(XEN) tlb_control = 0 vintr = 0x10f0001 int_stat = 0
(XEN) event_inj 0000000000000000, valid? 0, ec? 0, type 0, vector 0
(XEN) exitcode = 0x78 exit_int_info = 0
(XEN) exitinfo1 = 0 exitinfo2 = 0
(XEN) asid = 0x12 np_ctrl = 0x1: NP
(XEN) virtual vmload/vmsave = 0, virt_ext = 0
(XEN) cpl = 0 efer = 0x1d01 star = 0x23001000000000 lstar = 0xffffffff82200000
(XEN) CR0 = 0x0000000080050033 CR2 = 0x00007f0011223344
(XEN) CR3 = 0x0000000002e22000 CR4 = 0x00000000000006f0
(XEN) RSP = 0xffffffff82e03e00  RIP = 0xffffffff820e1234
(XEN) RAX = 0x0000000000004000  RFLAGS=0x0000000000000246
(XEN) DR6 = 0x00000000ffff0ff0, DR7 = 0x0000000000000400
(XEN) CSTAR = 0x0000000000000000 SFMask = 0x0000000000047700
(XEN) KernGSBase = 0x0000000000000000 PAT = 0x0007040600070406
(XEN) H_CR3 = 0x0000000812347000 CleanBits = 0
(XEN) CS: 0010 029b ffffffff 0000000000000000
(XEN) DS: 0000 0000 ffffffff 0000000000000000
(XEN) SS: 0018 0c93 ffffffff 0000000000000000
(XEN) ES: 0000 0000 ffffffff 0000000000000000
(XEN) FS: 0000 0000 ffffffff 0000000000000000
(XEN) GS: 0000 0000 ffffffff ffff888000000000
(XEN) GDTR: 0000 0000 0000007f fffffe0000001000
(XEN) LDTR: 0000 0000 ffffffff 0000000000000000
(XEN) IDTR: 0000 0000 00000fff fffffe0000000000
(XEN) TR: 0040 008b 00004087 fffffe0000003000
)";

/// `text` with the first `old` replaced.
inline std::string changed(std::string text, const std::string& old, const std::string& by) {
    const std::size_t at = text.find(old);
    return at == std::string::npos ? std::string{} : text.replace(at, old.size(), by);
}

} // namespace exeunt::test
