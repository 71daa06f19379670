// Any VMCS, entered, with any code in the guest: an entry or a refusal that names its rule, and nothing else.
#include "base/ensure.hpp"
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/support/vmx_harness.hpp"

#include <cstddef>
#include <doctest/doctest.h>
#include <memory>

using namespace exeunt;
using namespace exeunt::test;

namespace {

constexpr Tick limit = 2000;

/// The fields of VMX's table, in its order.
std::span<const VmcsField> fields() {
    static const std::vector<VmcsField> all = [] {
        std::vector<VmcsField> list;
#define VMCS_FIELD(encoding, name, ...) list.push_back(VmcsField::name);
#include "vmx/vmcs_fields.inc"
        return list;
    }();
    return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    static doctest::Context context;
    context.setAsDefaultForAssertsOutOfTestCases();
    if (size < 2) return 0;
    VmxHarness t;
    const u8 flags = data[0];
    if (flags & 1) t.use_ept();
    if (flags & 2) t.guest_mode(static_cast<Mode>(flags >> 4 & 3));  // real to protected32
    // Changes of fields: which (two bytes), how, and a value of one byte at one of eight places.
    const std::size_t changes = std::min<std::size_t>(data[1] % 32, (size - 2) / 4);
    for (std::size_t i = 0; i < changes; ++i) {
        const u8* change = data + 2 + 4 * i;
        const VmcsField field = fields()[(change[0] | unsigned{change[1]} << 8) % fields().size()];
        const u64 value = u64{change[3]} << (8 * (change[2] & 7));
        const u64 old = t.get(field);
        switch (change[2] >> 3 & 3) {
            case 0: t.set(field, value); break;
            case 1: t.set(field, old ^ value); break;
            case 2: t.set(field, old | value); break;
            default: t.set(field, ~value); break;
        }
    }
    const std::size_t rest = std::min<std::size_t>(size - 2 - 4 * changes, 0x1000);
    t.memory.write_bytes(Physical{Harness::code_address}, data + 2 + 4 * changes, rest);
    // The host enters again after each exit, until time is up.
    const u8 resume[] = {0x0F, 0x01, 0xC3, 0xF4};  // vmresume; hlt
    const u8 launch[] = {0x0F, 0x01, 0xC2, 0xF4};  // vmlaunch; hlt
    t.memory.write_bytes(Physical{VmxHarness::launch_address}, launch, sizeof launch);
    t.memory.write_bytes(Physical{VmxHarness::exit_address}, resume, sizeof resume);
    t.cpu.rip = VmxHarness::launch_address;
    const Tick before = t.cpu.now();
    t.run(limit);
    ENSURE(t.cpu.now() >= before && t.cpu.now() <= before + limit);
    if (t.witness.failures != 0) ENSURE(!t.witness.failure.check.empty() || t.witness.failure.instruction_error != 0);
    return 0;
}
