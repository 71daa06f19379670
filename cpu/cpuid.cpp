// CPUID. SDM 2A CPUID "CPU Identification", Table 3-8 "Information Returned by CPUID Instruction"; APM 3 E.3
// "Standard Feature Function Numbers", E.4 "Extended Feature Function Numbers".
//
// Not modelled, so these leaves read as 0: resource director (0FH, 10H), SGX
// (12H), processor trace (14H). Caches and TLBs are described only for software's information.
#include "cpu/cpuid.hpp"

#include "cpu/cpu.hpp"
#include "cpu/msrs.hpp"
#include "cpu/performance.hpp"
#include "cpu/xsave_layout.hpp"

#include <bit>

namespace exeunt {

namespace {

/// Bits of the rows for this leaf and subleaf.
CpuidResult feature_bits(const Cpu& cpu, u32 leaf, u32 subleaf) {
    CpuidResult r;
    u32* const registers[] = {&r.eax, &r.ebx, &r.ecx, &r.edx};
    for (const FeatureRow& row : feature_rows())
        if (row.leaf == leaf && row.subleaf == subleaf && cpu.has(row.feature))
            *registers[static_cast<unsigned>(row.reg)] |= u32{1} << row.bit;
    return r;
}

u32 text4(const char* text) {
    u32 value = 0;
    for (unsigned i = 4; i-- > 0;) value = value << 8 | static_cast<u8>(text[i]);
    return value;
}

/// "GenuineIntel": EBX, EDX, ECX.
CpuidResult vendor_leaf(const Cpu& cpu, u32 highest) {
    const char* name = cpu.model.vendor == Vendor::intel ? "GenuineIntel" : "AuthenticAMD";
    return {highest, text4(name), text4(name + 8), text4(name + 4)};
}

/// Bits of the APIC ID that tell threads of a core, and processors of the package, apart.
unsigned thread_shift(const Cpu& cpu) { return cpu.model.threads_per_core > 1 ? 1 : 0; }
unsigned package_shift(const Cpu& cpu) { return static_cast<unsigned>(std::bit_width(cpu.cpu_count - 1)); }

bool apic_enabled(const Cpu& cpu) {
    u64 base = 0;
    return cpu.has(Feature::APIC) && cpu.controller && cpu.controller->read_msr(apic_base_msr, base) &&
           test_bit(base, 11);
}

CpuidResult leaf_1(const Cpu& cpu) {
    CpuidResult r = feature_bits(cpu, 1, 0);
    const u32 processors = u32{1} << package_shift(cpu);
    r.eax = processor_signature(cpu.model);
    r.ebx = (cpu.has(Feature::CLFSH) ? 8u << 8 : 0) | cpu.index << 24;
    if (cpu.cpu_count > 1) {
        r.ebx |= processors << 16;
        r.edx |= 1u << 28; // HTT
    }
    if (!apic_enabled(cpu)) r.edx &= ~(1u << 9);
    if (cpu.control.cr4 & CR4::OSXSAVE) r.ecx |= 1u << 27;
    if (cpu.model.has(Quirk::intel_platform_msrs) && !(cpu.misc_enable & MiscEnable::MONITOR))
        r.ecx &= ~(1u << 3);
    return r;
}

/// SDM 2A Table 3-12 "Encoding of CPUID Leaf 2 Descriptors": FFH, "use leaf 4"; F0H, 64-byte prefetching;
/// TLBs.
CpuidResult leaf_2() { return {0x7603'6301, 0x00F0'B5FF, 0, 0x00C3'0000}; }

u32 cache_leaf_eax(const Cpu& cpu, const CacheDescription& cache) {
    const u32 sharing = cache.shared ? (u32{1} << package_shift(cpu)) - 1 : cpu.model.threads_per_core - 1;
    return static_cast<u32>(cache.type) | cache.level << 5 | 1u << 8 | sharing << 14;
}

/// Leaf 4, and AMD's 8000_001DH, which has the same layout.
CpuidResult cache_leaf(const Cpu& cpu, u32 subleaf) {
    if (subleaf >= cpu.model.caches.size()) return {};
    const CacheDescription& cache = cpu.model.caches[subleaf];
    CpuidResult r;
    r.eax = cache_leaf_eax(cpu, cache);
    r.ebx = (cache.line_size - 1) | (cache.ways - 1) << 22;
    r.ecx = cache.sets - 1;
    r.edx = cache.inclusive ? 2 : 0;
    return r;
}

CpuidResult leaf_4(const Cpu& cpu, u32 subleaf) {
    CpuidResult r = cache_leaf(cpu, subleaf);
    const u32 cores = (u32{1} << (package_shift(cpu) - std::min(package_shift(cpu), thread_shift(cpu)))) - 1;
    if (r.eax != 0) r.eax |= std::min(cores, 63u) << 26;
    return r;
}

/// Monitor lines are 64 bytes; MWAIT takes the "break on interrupt" extension. No C-state is announced, so
/// that software idles with HLT, during which time is skipped.
CpuidResult leaf_5(const Cpu& cpu) {
    if (!cpu.has(Feature::MONITOR)) return {};
    return {64, 64, 3, 0};
}

CpuidResult leaf_7(const Cpu& cpu, u32 subleaf) {
    CpuidResult r = feature_bits(cpu, 7, subleaf);
    if (subleaf == 0 && (cpu.control.cr4 & CR4::PKE)) r.ecx |= 1u << 4; // OSPKE
    return r;
}

/// SDM 2A "INPUT EAX = 0AH: Returns Architectural Performance Monitoring Leaf": of the seven events of EBX those of
/// caches and branches, bits 3 to 6, are not there.
CpuidResult leaf_a(const Cpu& cpu) {
    using P = PerformanceMonitor;
    if (!cpu.performance) return {};
    return {P::version | P::counters << 8 | P::width << 16 | 7u << 24, 0x78, 0, P::fixed_counters | P::width << 5};
}

/// SDM 2A "INPUT EAX = 0BH: Returns Extended Topology Information".
CpuidResult leaf_b(const Cpu& cpu, u32 subleaf) {
    CpuidResult r;
    r.ecx = subleaf & 0xFF;
    r.edx = cpu.index;
    if (subleaf == 0) {
        r.eax = thread_shift(cpu);
        r.ebx = std::min(cpu.model.threads_per_core, cpu.cpu_count);
        r.ecx |= 1u << 8; // SMT
    } else if (subleaf == 1) {
        r.eax = std::max(package_shift(cpu), thread_shift(cpu));
        r.ebx = cpu.cpu_count;
        r.ecx |= 2u << 8; // core
    }
    return r;
}

/// SDM 1 13.2 "Enumeration of CPU Support for XSAVE Instructions and XSAVE-Supported Features".
CpuidResult leaf_d(const Cpu& cpu, u32 subleaf) {
    if (!cpu.has(Feature::XSAVE)) return {};
    const u64 supported = xcr0_supported(cpu.model);
    if (subleaf == 0)
        return {low32(supported), xsave_standard_size(cpu.control.xcr0), xsave_standard_size(supported),
                high32(supported)};
    if (subleaf == 1) {
        CpuidResult r = feature_bits(cpu, 0xD, 1);
        if (cpu.has(Feature::XSAVES))
            r.ebx = xsave_compacted_size(cpu.control.xcr0 | cpu.xss);
        else if (cpu.has(Feature::XSAVEC))
            r.ebx = xsave_compacted_size(cpu.control.xcr0);
        return r;
    }
    for (const XsaveComponent& component : xsave_components)
        if (component.number == subleaf && test_bit(supported, subleaf))
            return {component.bytes, component.offset, component.align64 ? 2u : 0u, 0};
    return {};
}

CpuidResult basic_leaf(const Cpu& cpu, u32 leaf, u32 subleaf) {
    switch (leaf) {
    case 0x00:
        return vendor_leaf(cpu, cpu.misc_enable & MiscEnable::limit_CPUID ? 2 : cpu.model.max_basic_leaf);
    case 0x01: return leaf_1(cpu);
    case 0x02: return cpu.model.vendor == Vendor::intel ? leaf_2() : CpuidResult{};
    case 0x04: return cpu.model.vendor == Vendor::intel ? leaf_4(cpu, subleaf) : CpuidResult{};
    case 0x05: return leaf_5(cpu);
    case 0x06: return feature_bits(cpu, 6, 0);
    case 0x07: return leaf_7(cpu, subleaf);
    case 0x0A: return leaf_a(cpu);
    case 0x0B: return leaf_b(cpu, subleaf);
    case 0x0D: return leaf_d(cpu, subleaf);
    case 0x15: return {1, tsc_hertz / crystal_hertz, crystal_hertz, 0};
    case 0x16: return {tsc_hertz / 1'000'000, tsc_hertz / 1'000'000, crystal_hertz / 1'000'000, 0};
    default: return {};
    }
}

CpuidResult leaf_8000_0001(const Cpu& cpu) {
    CpuidResult r = feature_bits(cpu, 0x8000'0001, 0);
    if (!execute_disable_available(cpu)) r.edx &= ~(1u << 20);
    if (cpu.model.vendor == Vendor::amd) {
        r.eax = processor_signature(cpu.model);
        if (cpu.cpu_count > 1) r.ecx |= 1u << 1; // CmpLegacy
    } else if (!cpu.code64()) {
        r.edx &= ~(1u << 11); // SDM 2A CPUID: SYSCALL is reported in 64-bit mode only
    }
    // APM 3 E.4.2: bits 9:0, 17:12, 24:23 are those of CPUID.01H:EDX.
    if (cpu.model.has(Quirk::cpuid_mirrors_leaf_1)) r.edx |= leaf_1(cpu).edx & 0x0183'F3FF;
    return r;
}

CpuidResult brand_leaf(const Cpu& cpu, u32 leaf) {
    std::string text = cpu.model.brand;
    text.resize(48, '\0');
    const char* part = text.data() + 16 * (leaf - 0x8000'0002);
    return {text4(part), text4(part + 4), text4(part + 8), text4(part + 12)};
}

const CacheDescription* find_cache(const Cpu& cpu, unsigned level, CacheDescription::Type type) {
    for (const CacheDescription& cache : cpu.model.caches)
        if (cache.level == level && cache.type == type) return &cache;
    return nullptr;
}

u32 kbytes(const CacheDescription& cache) {
    return static_cast<u32>(u64{cache.ways} * cache.line_size * cache.sets / 1024);
}

/// APM 3 E.4.4 "Function 8000_0005h": L1 caches (and TLBs, as if fully associative with 64 entries).
CpuidResult leaf_8000_0005(const Cpu& cpu) {
    const auto encode = [](const CacheDescription* cache) {
        return cache ? kbytes(*cache) << 24 | cache->ways << 16 | 1u << 8 | cache->line_size : 0;
    };
    return {0xFF40'FF40, 0xFF40'FF40, encode(find_cache(cpu, 1, CacheDescription::Type::data)),
            encode(find_cache(cpu, 1, CacheDescription::Type::instruction))};
}

/// APM 3 Table E-4 "L2/L3 Cache and TLB Associativity Field Encoding".
u32 associativity(unsigned ways) {
    constexpr unsigned table[] = {0, 1, 2, 3, 4, 6, 8, 0, 16, 0, 32, 48, 64, 96, 128};
    for (u32 code = 1; code < std::size(table); ++code)
        if (table[code] == ways) return code;
    return 9; // see leaf 8000_001DH
}

/// APM 3 E.4.5 "Function 8000_0006h"; SDM 2A CPUID has ECX only, in the same format.
CpuidResult leaf_8000_0006(const Cpu& cpu) {
    CpuidResult r;
    if (const CacheDescription* l2 = find_cache(cpu, 2, CacheDescription::Type::unified))
        r.ecx = kbytes(*l2) << 16 | associativity(l2->ways) << 12 | 1u << 8 | l2->line_size;
    const CacheDescription* l3 = find_cache(cpu, 3, CacheDescription::Type::unified);
    if (cpu.model.vendor == Vendor::amd && l3)
        r.edx = (kbytes(*l3) / 512) << 18 | associativity(l3->ways) << 12 | 1u << 8 | l3->line_size;
    return r;
}

CpuidResult leaf_8000_0008(const Cpu& cpu) {
    CpuidResult r = feature_bits(cpu, 0x8000'0008, 0);
    r.eax = cpu.model.physical_bits | cpu.model.linear_bits << 8;
    if (cpu.model.vendor == Vendor::amd) r.ecx = (cpu.cpu_count - 1) | package_shift(cpu) << 12;
    if (cpu.has(Feature::INVLPGB)) r.edx |= invlpgb_count_max;
    if (cpu.has(Feature::RDPRU)) r.edx |= 1u << 16; // the highest register is APERF
    return r;
}

/// SVM revision 1; ASIDs are 1 to 7FFFH.
CpuidResult leaf_8000_000a(const Cpu& cpu) {
    if (!cpu.has(Feature::SVM)) return {};
    CpuidResult r = feature_bits(cpu, 0x8000'000A, 0);
    r.eax = 1;
    r.ebx = 0x8000;
    return r;
}

/// APM 3 E.4.17 "Function 8000_001Eh": extended APIC ID, core and node.
CpuidResult leaf_8000_001e(const Cpu& cpu) {
    if (!cpu.has(Feature::TopologyExtensions)) return {};
    const u32 threads = cpu.model.threads_per_core;
    return {cpu.index, (cpu.index / threads) | (threads - 1) << 8, 0, 0};
}

CpuidResult extended_leaf(const Cpu& cpu, u32 leaf, u32 subleaf) {
    switch (leaf) {
    case 0x8000'0000:
        return cpu.model.vendor == Vendor::amd ? vendor_leaf(cpu, cpu.model.max_extended_leaf)
                                               : CpuidResult{cpu.model.max_extended_leaf, 0, 0, 0};
    case 0x8000'0001: return leaf_8000_0001(cpu);
    case 0x8000'0002:
    case 0x8000'0003:
    case 0x8000'0004: return brand_leaf(cpu, leaf);
    case 0x8000'0005: return cpu.model.vendor == Vendor::amd ? leaf_8000_0005(cpu) : CpuidResult{};
    case 0x8000'0006: return leaf_8000_0006(cpu);
    case 0x8000'0008: return leaf_8000_0008(cpu);
    case 0x8000'000A: return leaf_8000_000a(cpu);
    case 0x8000'001D: return cpu.has(Feature::TopologyExtensions) ? cache_leaf(cpu, subleaf) : CpuidResult{};
    case 0x8000'001E: return leaf_8000_001e(cpu);
    default: return feature_bits(cpu, leaf, 0);
    }
}

} // namespace

/// SDM 2A Figure 3-6 "Version Information Returned by CPUID in EAX".
u32 processor_signature(const CpuModel& model) {
    const u32 family = model.family < 0xF ? model.family : 0xF;
    const u32 extended_family = model.family < 0xF ? 0 : model.family - 0xF;
    return model.stepping | (model.model & 0xF) << 4 | family << 8 | (model.model >> 4) << 16 |
           extended_family << 20;
}

CpuidResult cpuid(const Cpu& cpu, u32 leaf, u32 subleaf) {
    const CpuModel& model = cpu.model;
    if (leaf >= 0x8000'0000 && leaf <= model.max_extended_leaf) return extended_leaf(cpu, leaf, subleaf);
    if (leaf <= model.max_basic_leaf) return basic_leaf(cpu, leaf, subleaf);
    if (model.has(Quirk::cpuid_beyond_range_is_zero)) return {};
    return basic_leaf(cpu, model.max_basic_leaf, subleaf);
}

} // namespace exeunt
