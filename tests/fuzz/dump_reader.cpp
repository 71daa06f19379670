// The reader of VMCS and VMCB dumps on any text: a dump, or BadInput, and nothing else; then the rules on
// what it read.
#include "base/bad_input.hpp"
#include "diagnosis/check.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

using namespace exeunt;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const CpuModel intel = CpuModel::load("intel-max"), amd = CpuModel::load("amd-max");
    try {
        const Dump dump = read_dump({reinterpret_cast<const char*>(data), size}, "fuzz");
        if (dump_as_json(read_dump(dump_as_json(dump), "json")) != dump_as_json(dump)) std::abort();
        (void)check_dump(dump, dump.svm ? amd : intel, (size & 1) != 0);
    } catch (const BadInput&) {}
    return 0;
}
