#include "machine/extensions.hpp"

#include "cpu/cpu.hpp"

namespace exeunt {

std::unique_ptr<Virtualization> attach_extension(Cpu&, LocalApic&, Clock&) { return nullptr; }

}  // namespace exeunt
