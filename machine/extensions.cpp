#include "machine/extensions.hpp"

#include "cpu/cpu.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

std::unique_ptr<Virtualization> attach_extension(Cpu& cpu) {
    if (cpu.has(Feature::VMX)) return std::make_unique<Vmx>(cpu);
    return nullptr;
}

}  // namespace exeunt
