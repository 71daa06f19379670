#include "machine/extensions.hpp"

#include "cpu/cpu.hpp"
#include "svm/svm.hpp"
#include "vmx/vmx.hpp"

namespace exeunt {

std::unique_ptr<Virtualization> attach_extension(Cpu& cpu, SvmInterconnect& interconnect,
                                                 const Virtualization* first) {
    if (cpu.has(Feature::VMX)) return std::make_unique<Vmx>(cpu, static_cast<const Vmx*>(first));
    if (cpu.has(Feature::SVM)) return std::make_unique<Svm>(cpu, &interconnect);
    return nullptr;
}

} // namespace exeunt
