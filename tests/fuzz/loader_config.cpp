// A machine's configuration from any text: a configuration that survives its own round trip, or BadInput.
#include "base/ensure.hpp"
#include "machine/config.hpp"

#include <cstddef>

using namespace exeunt;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
    try {
        const MachineConfig config =
            MachineConfig::from_json({reinterpret_cast<const char*>(data), size}, "configuration");
        const std::string text = config.to_json();
        ENSURE(MachineConfig::from_json(text, "again").to_json() == text);
    } catch (const BadInput&) {
    }
    return 0;
}
